"""Descriptors of O_PATH, which the kernel does not let a supervisor hand over: ADDFD takes none.

Such a descriptor lets its holder look (fstat) and name: everything else is a call that is judged by what the
descriptor refers to. So the open is decided on the pinned object and continued. Its flags are in a register, so a
path descriptor is all it can give; and before the thread runs on, every path descriptor of the process must refer to
something the policy lets it see, whichever number the new one got.
"""

import os
import signal
from collections.abc import Iterator

from helm_sentry.abi import flags, libc
from helm_sentry.broker.action import Action, Answered, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.broker.paths import Pinned
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.intercept.process_tree import thread_group
from helm_sentry.operation import Kind

OWN_OBJECT = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/own-descriptor")
_STRAYED = Decision(Verdict.DENY, Reason.BUILTIN, "sentry/verified-open")


def open_path(call: Call, directory: int, path: bytes, open_flags: int) -> Later:
    """Open with O_PATH: decided on the pinned object, continued, and looked at again when it has happened."""
    pinned = call.pin(directory, path, follow=not open_flags & os.O_NOFOLLOW)
    operation = file_operation(Kind.FILE_STAT, pinned.path)
    if pinned.anonymous:
        call.judge_builtin(OWN_OBJECT, operation)
    else:
        call.judge(operation)
    call.require(pinned)
    return Later(lambda: _continue(call))


def _continue(call: Call) -> Action:
    try:
        libc.ptrace(flags.PTRACE_SEIZE, call.tid, flags.PTRACE_O_EXITKILL)
        libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
    except ProcessLookupError:
        raise Gone from None
    except PermissionError:
        raise Unreadable from None
    call.broker.record(call, "continue")
    call.broker.listener.send_continue(call.id)
    _, status = os.waitpid(call.tid, flags.WALL | flags.WNOTHREAD)
    if os.WIFSTOPPED(status):
        _verify(call)
        stop = status >> 16 == flags.PTRACE_EVENT_STOP
        libc.ptrace(flags.PTRACE_DETACH, call.tid, 0 if stop else os.WSTOPSIG(status))
    return Answered()


def _verify(call: Call) -> None:
    """Kill the process, recorded first, if one of its path descriptors refers to what it may not see."""
    for number, pinned in _path_descriptors(call):
        seen = file_operation(Kind.FILE_STAT, pinned.path)
        if not pinned.anonymous and not call.broker.decide((seen,)).allowed:
            call.broker.killed(call, _STRAYED, f"descriptor {number} became one of {pinned.path}")
            os.kill(thread_group(call.tid), signal.SIGKILL)
            return


def _path_descriptors(call: Call) -> Iterator[tuple[int, Pinned]]:
    for name in os.listdir(f"/proc/{call.tid}/fd"):
        try:
            if _is_path(call.tid, name):
                yield int(name), call.descriptor(int(name))
        except OSError:
            continue  # closed by another thread meanwhile


def _is_path(tid: int, name: str) -> bool:
    with open(f"/proc/{tid}/fdinfo/{name}", "rb", buffering=0) as file:
        fields = file.read(512)
    return bool(int(fields.partition(b"flags:")[2].split()[0], 8) & flags.O_PATH)
