"""What a wait status of a seized thread says. Pure: a number goes in, a `Stop` comes out. See ptrace(2)."""

import os
import signal
from enum import Enum, auto
from typing import NamedTuple

from helm_sentry.abi import flags

_CONTINUED = 0xFFFF
_SYSCALL_STOP = signal.SIGTRAP | 0x80  # PTRACE_O_TRACESYSGOOD


class What(Enum):
    """The kinds of things that happen to a seized thread."""

    ENDED = auto()  # it has exited or was killed, and is collected
    CONTINUED = auto()  # a child that is not traced goes on after a stop
    SECCOMP = auto()  # the filter found a call that is mediated; the kernel has not begun it
    RETURNED = auto()  # a call whose return was asked for has returned
    EXECUTED = auto()  # a new program is in place, none of it has run
    STARTED = auto()  # it has started another process or thread, or that has let go of its memory
    ENDING = auto()  # it is about to end
    GROUP_STOPPED = auto()  # job control stops its process; it must be left to listen
    TRAPPED = auto()  # a new thread before its first instruction, or one that job control lets go on
    SIGNALLED = auto()  # a signal is about to be delivered to it


class Stop(NamedTuple):
    """One wait status.

    Attributes:
        what: what happened.
        signal: that was to be delivered, or stopped the process; 0 for the other kinds.
    """

    what: What
    signal: int = 0


_EVENTS = {
    flags.PTRACE_EVENT_FORK: What.STARTED,
    flags.PTRACE_EVENT_VFORK: What.STARTED,
    flags.PTRACE_EVENT_CLONE: What.STARTED,
    flags.PTRACE_EVENT_VFORK_DONE: What.STARTED,
    flags.PTRACE_EVENT_EXEC: What.EXECUTED,
    flags.PTRACE_EVENT_EXIT: What.ENDING,
    flags.PTRACE_EVENT_SECCOMP: What.SECCOMP,
}


def classify(status: int) -> Stop:
    """Return what a wait status says about a thread that was seized with PTRACE_O_TRACESYSGOOD.

    Raises:
        ValueError: the kernel gives no such status.
    """
    if status == _CONTINUED:
        return Stop(What.CONTINUED)
    if not os.WIFSTOPPED(status):
        return Stop(What.ENDED)
    event, number = status >> 16, os.WSTOPSIG(status)
    if event == flags.PTRACE_EVENT_STOP:
        return Stop(What.TRAPPED) if number == signal.SIGTRAP else Stop(What.GROUP_STOPPED, number)
    if event:
        if event not in _EVENTS or number != signal.SIGTRAP:
            raise ValueError(f"wait status {status:#x} has no meaning")
        return Stop(_EVENTS[event])
    return Stop(What.RETURNED) if number == _SYSCALL_STOP else Stop(What.SIGNALLED, number)
