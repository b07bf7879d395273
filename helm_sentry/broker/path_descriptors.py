"""Descriptors of O_PATH, which the kernel does not let a supervisor hand over: ADDFD takes none.

Such a descriptor lets its holder look (fstat) and name: everything else is a call that is judged by what the
descriptor refers to. So the open is decided on the pinned object and continued. Its flags are in a register, so a
path descriptor is all it can give; and before the thread runs on, every path descriptor of the process must refer to
something the policy lets it see, whichever number the new one got.
"""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from helm_sentry.broker.action import Action, Answered, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Unreadable
from helm_sentry.broker.paths import is_path_descriptor
from helm_sentry.broker.seizure import continue_watched
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.intercept.process_tree import descendants, thread_group
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
    watch = continue_watched(call)
    if watch.wait():
        _verify(call)
        watch.release()
    return Answered()


def _verify(call: Call) -> None:
    """Kill the process, recorded first, if one of its path descriptors refers to what it may not see.

    Other processes of the run may share the descriptor, or have inherited it meanwhile: they are killed with it.
    """
    if strayed := _strayed_in(call, call.tid):
        call.broker.killed(call, _STRAYED, f"a descriptor became one of {strayed}")
        for pid in descendants(call.broker.resolver.guardian):
            if pid == thread_group(call.tid) or _strayed_in(call, pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _strayed_in(call: Call, tid: int) -> str:
    try:
        return next(_strayed(call, tid), "")
    except FileNotFoundError:
        return ""  # it has just ended
    except (OSError, Unreadable) as error:  # what cannot be verified has strayed
        return f"something that cannot be read ({error})"


def _strayed(call: Call, tid: int) -> Iterator[str]:
    """Yield the path of each path descriptor that refers to what the policy does not let the agent see."""
    place = call.hold(os.open(f"/proc/{tid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    for name in os.listdir(place):
        try:
            where = os.readlink(name, dir_fd=place)
            # Nearly all are done with this: what may be seen need not be told apart.
            if where.endswith(" (deleted)") or not _may_be_seen(call, where):
                yield from _hidden(call, tid, int(name))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBADF):  # closed by another thread meanwhile
                raise


def _hidden(call: Call, tid: int, number: int) -> Iterator[str]:
    pinned = call.broker.resolver.descriptor(call.keep, tid, number)
    if is_path_descriptor(tid, number) and not pinned.anonymous and not _may_be_seen(call, pinned.path):
        yield pinned.path


def _may_be_seen(call: Call, path: str) -> bool:
    return call.permits(file_operation(Kind.FILE_STAT, path))
