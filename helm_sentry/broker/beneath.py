"""Teaching the compiled receiver what a policy decides about all that lies beneath a directory."""

import errno
import os
import stat
from typing import TYPE_CHECKING

from helm_sentry.audit.line import template_beneath
from helm_sentry.audit.record import ActionName
from helm_sentry.broker.call import Call
from helm_sentry.native.library import MISSING, Receiver
from helm_sentry.operation import Kind

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
    if receiver := broker.teachable(call):
        try:
            device = os.stat(os.path.dirname(call.operations[0].path)).st_dev
        except OSError:
            return
        if device not in broker.resolver.proc_devices:
            _teach(broker, receiver, call, MISSING, device, "errno", errno.errorcode[code])


def _teach(
    broker: "Broker", receiver: Receiver, call: Call, kind: int, device: int, action: ActionName, code: str = ""
) -> None:
    (operation,), decision = call.operations, call.decision
    directory = broker.rules.uniform.above(operation.kind, operation.path)
    if directory is None or decision is None:
        return
    if any(path.startswith(f"{directory}/") for path in broker.names.replaced):  # another file is read in its place
        return
    record = template_beneath(call.row.name, operation.kind, decision, call.epoch, action, code)
    receiver.learn_beneath(call.row.name, kind, directory, device, record, call.epoch)
