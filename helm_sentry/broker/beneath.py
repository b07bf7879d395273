"""Teaching the compiled receiver what a policy decides about all that lies beneath a directory."""

import errno
import os
import stat
from typing import TYPE_CHECKING

from helm_sentry.audit.line import template_beneath
from helm_sentry.audit.record import ActionName
from helm_sentry.broker.call import Call
from helm_sentry.decode.operations import opening_kinds
from helm_sentry.native.library import MISSING, Receiver
from helm_sentry.operation import Kind

_TRUNCATES, _CREATES, _CHANGES = 4, 8, 16  # as in native/decisions.h
_CREATE, _DELETE, _RENAME = (Kind.FILE_CREATE, False), (Kind.FILE_DELETE, True), (Kind.FILE_RENAME, False)
_COME_TO = {  # what each call comes to where the receiver may make it: kinds, and whether with all beneath
    **dict.fromkeys(("mkdir", "mkdirat"), (_CREATE,)),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), (_DELETE,)),
    **dict.fromkeys(("rename", "renameat", "renameat2"), (_RENAME, _CREATE, _DELETE)),
}

if TYPE_CHECKING:  # the broker teaches; this direction is for types alone
    from helm_sentry.broker.broker import Broker


def teach(broker: "Broker", receiver: Receiver, call: Call, status: os.stat_result, action: ActionName) -> None:
    """Let the receiver take the same decision beneath the same directory, about what is of the same type.

    Args:
        broker: that made the decision.
        receiver: that may repeat it.
        call: an open for reading or a look that was allowed.
        status: of the object, which is not one of /proc.
        action: what its record says was done.
    """
    _teach(broker, receiver, call, stat.S_IFMT(status.st_mode), status.st_dev, action)


def teach_missing(broker: "Broker", call: Call, code: int) -> None:
    """Let the receiver say by itself that something is not there, where this call was allowed to be told so."""
    if code != errno.ENOENT or [operation.kind for operation in call.operations] != [Kind.FILE_STAT]:
        return
    if (receiver := broker.teachable(call)) and (device := _device_above(call)) is not None:
        _teach(broker, receiver, call, MISSING, device, "errno", errno.errorcode[code])


def teach_opening(call: Call, open_flags: int, status: os.stat_result | None) -> None:
    """Let the receiver open for writing, or create, by itself what is decided like this.

    Args:
        call: an open that was allowed.
        open_flags: O_* of open(2).
        status: of the file that is opened; None where one was created.
    """
    access = open_flags & os.O_ACCMODE
    if _kinds(call) != [(kind, False) for kind in opening_kinds(open_flags, status is not None, directory=False)]:
        return
    if status is None:
        _teach_effect(call, MISSING, access | _CREATES, before=True)
    elif stat.S_ISREG(status.st_mode) and access in (os.O_WRONLY, os.O_RDWR):
        truncates = bool(open_flags & os.O_TRUNC)
        _teach_effect(call, stat.S_IFREG, access | _TRUNCATES * truncates, before=truncates)


def teach_entry(call: Call) -> None:
    """Let the receiver make, remove and move entries of directories by itself that are decided like this one."""
    if call.row.name in _COME_TO and _kinds(call) == list(_COME_TO[call.row.name]):
        _teach_effect(call, MISSING, _CHANGES, before=True)


def _kinds(call: Call) -> list[tuple[Kind, bool]]:
    return [(operation.kind, operation.directory) for operation in call.operations]


def _teach_effect(call: Call, kind: int, manner: int, before: bool) -> None:
    """Teach it; `before`: its record is written before anything is done."""
    broker = call.broker
    if broker.durable:  # the receiver waits for no disk
        return
    if (receiver := broker.teachable(call)) and (device := _device_above(call)) is not None:
        _teach(broker, receiver, call, kind, device, "value" if before else "fd", manner=manner)


def _device_above(call: Call) -> int | None:
    """Return `st_dev` of the directory that a call is about; None where nothing is taught: it is gone, or in /proc."""
    try:
        device = os.stat(os.path.dirname(call.operations[0].path)).st_dev
    except OSError:
        return None
    return None if device in call.broker.resolver.proc_devices else device


def _teach(
    broker: "Broker",
    receiver: Receiver,
    call: Call,
    kind: int,
    device: int,
    action: ActionName,
    code: str = "",
    manner: int = 0,
) -> None:
    operations, decision = call.operations, call.decision
    directory = broker.rules.uniform.above_all(operations)
    if directory is None or decision is None:
        return
    if any(path.startswith(f"{directory}/") for path in broker.names.replaced):  # another file is read in its place
        return
    kinds = tuple([operation.kind for operation in operations])
    record = template_beneath(call.row.name, kinds, decision, call.epoch, action, code)
    receiver.learn_beneath(call.row.name, kind, directory, device, record, call.epoch, manner)
