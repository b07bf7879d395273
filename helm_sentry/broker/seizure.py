"""Seizing a caller: the one way in which a call is left to the kernel and looked at before its thread runs on.

The thread that seizes must be the one that waits, so all of this happens on one worker. An attached thread whose
tracer dies is killed (EXITKILL): a supervisor that dies in the middle leaves nothing unverified.
"""

import errno
import os
from contextlib import suppress

from helm_sentry.abi import flags, libc
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone

_MINE = flags.WALL | flags.WNOTHREAD


def continue_seized(call: Call, options: int = 0) -> None:
    """Seize the caller, record the call and continue it; the thread stops when the call has returned.

    That stop tells a failed exec from one that takes long. It is asked for before the thread can go on and reach its
    next call, and as late as can be: where a waiting caller can be interrupted (before Linux 5.19) it may leave the
    call for the stop and make it anew.

    Args:
        call: of a row that says why it may be continued.
        options: PTRACE_O_* besides EXITKILL.

    Raises:
        Gone: the caller died, or its thread id is somebody else's by now.
        Unreadable: the kernel keeps the caller from us.
        LookupError: the row gives no reason to continue.
    """
    _seize(call, options)
    try:
        call.broker.record(call, "continue")
        libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
        call.broker.listener.send_continue(call.id)
    except BaseException:
        _let_go(call)
        raise


def continue_to_stop(call: Call) -> int | None:
    """Do the same and wait for the stop; return its wait status, None when the thread has ended.

    Raises:
        Gone, Unreadable, LookupError: as `continue_seized`.
    """
    continue_seized(call)
    try:
        status = os.waitpid(call.tid, _MINE)[1]
    except ChildProcessError:  # another thread of its process has executed a program
        return None
    return status if os.WIFSTOPPED(status) else None


def wait_for_any() -> tuple[int, int]:
    """Wait for a tracee of this thread, whichever: one that execs takes its leader's id.

    Raises:
        ChildProcessError: there is none any more.
    """
    return os.waitpid(-1, _MINE)


def detach(pid: int, status: int) -> None:
    """Let go of a tracee that stopped with a status, or collect it if it has been killed: its parent hears only then.

    A signal that was about to be delivered is delivered.
    """
    try:
        libc.ptrace(flags.PTRACE_DETACH, pid, 0 if status >> 16 else os.WSTOPSIG(status))
    except ProcessLookupError:
        reap(pid)


def reap(pid: int) -> None:
    """Collect a tracee of this thread that dies."""
    with suppress(ChildProcessError):
        while os.WIFSTOPPED(os.waitpid(pid, _MINE)[1]):
            pass


def _seize(call: Call, options: int) -> None:
    if not call.row.continue_reason:
        raise LookupError(f"`{call.row.name}` gives no reason to continue it")
    try:
        libc.ptrace(flags.PTRACE_SEIZE, call.tid, options | flags.PTRACE_O_EXITKILL)
    except ProcessLookupError:
        raise Gone from None
    except PermissionError:
        raise call.out_of_reach() from None
    # Between notification and seizure the id may have become another thread's, which then must not be touched.
    if not call.broker.listener.alive(call.id):
        _let_go(call)
        raise Gone


def _let_go(call: Call) -> None:
    """End the seizure of a thread that was not continued: answer with an error, wait for the stop, detach."""
    with suppress(ProcessLookupError):
        libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
    call.broker.listener.send_errno(call.id, errno.EPERM)
    with suppress(ChildProcessError):
        pid, status = wait_for_any()
        if os.WIFSTOPPED(status):
            detach(pid, status)
