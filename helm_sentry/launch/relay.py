"""Signals and job control: the agent behaves at the terminal as if there were no supervisor.

Agent and supervisor share one process group, so the terminal and pipelines work as without us. What the terminal
sends to the group the agent gets by itself; what somebody sends to the supervisor alone is passed on.
"""

import os
import resource
import signal

from helm_sentry.abi import libc
from helm_sentry.abi.structs import SIGNALFD_SIGINFO

RELAYED = {
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGALRM,
    signal.SIGWINCH,
}
_FROM_KERNEL = 0x80  # <asm-generic/siginfo.h> SI_KERNEL: the terminal driver, for the whole group


class Relay:
    """Holds the relayed signals back from this process and passes on those meant for the agent."""

    def __init__(self) -> None:
        self.callers_mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED))
        self.descriptor = libc.signalfd({int(number) for number in RELAYED})

    def pass_on(self, agent: int) -> None:
        """Read one signal and send it to the agent, unless the agent has had it already."""
        number, _, code = SIGNALFD_SIGINFO.unpack(os.read(self.descriptor, SIGNALFD_SIGINFO.size))
        if code == _FROM_KERNEL:
            return
        try:
            os.kill(agent, number)
        except ProcessLookupError:
            return  # it has just ended


def stop_with_agent() -> None:
    """Stop this process because the agent has stopped, so that a shell sees the job stop."""
    os.kill(os.getpid(), signal.SIGSTOP)


def end_as(wait_status: int) -> int:
    """Return the exit status that repeats the agent's; if it died of a signal, die of the same one."""
    if not os.WIFSIGNALED(wait_status):
        return os.waitstatus_to_exitcode(wait_status)
    number = os.WTERMSIG(wait_status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
