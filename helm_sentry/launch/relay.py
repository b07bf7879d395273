"""Signals and job control: the agent behaves at the terminal as if there were no supervisor.

Agent and supervisor share one process group, so the terminal and pipelines work as without us. What the terminal
sends to the group the agent gets by itself; what somebody sends to the supervisor alone is passed on.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator

from helm_sentry.abi import libc
from helm_sentry.abi.structs import SIGNALFD_SIGINFO
from helm_sentry.intercept.process_tree import group_members, parent_of, stat_fields
from helm_sentry.launch.signals import FROM_KERNEL, RELAYED

# A line for the user must not stop the supervisor because the agent, a shell say, has the terminal.
_NEVER = {signal.SIGTTIN, signal.SIGTTOU}


class Relay:
    """Holds the relayed signals back from this process and passes on those meant for the agent.

    Attributes:
        instead: what is done about a signal that a process sent, where it is not passed on.
    """

    def __init__(self) -> None:
        self.instead: dict[int, Callable[[], None]] = {}
        self.callers_mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED | _NEVER))
        self.descriptor = libc.signalfd({int(number) for number in RELAYED})

    def pass_on(self, agent: int) -> None:
        """Read one signal and send it to the agent, unless the agent has had it already."""
        number, code = self._read()
        # A terminal that hangs up tells the leader of its session alone, which may be this process.
        if code != FROM_KERNEL and number in self.instead:
            self.instead[number]()
        elif code != FROM_KERNEL or number == signal.SIGHUP:
            _send(agent, number)

    def pass_on_early(self, agent: int) -> None:
        """Pass on what came before there was an agent; one that has not begun can get it twice without noticing."""
        while select.select([self.descriptor], [], [], 0)[0]:
            _send(agent, self._read()[0])

    def _read(self) -> tuple[int, int]:
        number, _, code = SIGNALFD_SIGINFO.unpack(os.read(self.descriptor, SIGNALFD_SIGINFO.size))
        return number, code


def stop_with_agent(agent: int, guardian: int, number: int, is_stopped: Callable[[int], bool]) -> None:
    """Stop this process because `number` has stopped the agent, so that a shell sees the job stop; go on together."""
    if not is_stopped(agent):
        return
    group = os.getpgid(agent)
    with _terminal() as terminal:
        has_terminal = terminal >= 0 and os.tcgetpgrp(terminal) == group != os.getpgrp()
        if number != signal.SIGSTOP and not _has_shell(guardian):
            os.killpg(group, signal.SIGCONT)  # without a supervisor the kernel would not have let it stop
            return
        _stop(number)
        # A shell gives the terminal back to the group it started, and an agent like `bash -i` is another one.
        if has_terminal and os.tcgetpgrp(terminal) == os.getpgrp():
            os.tcsetpgrp(terminal, group)
    if is_stopped(agent):
        os.killpg(group, signal.SIGCONT) if group != os.getpgrp() else _send(agent, signal.SIGCONT)


def _send(agent: int, number: int) -> None:
    try:
        os.kill(agent, number)
    except ProcessLookupError:
        return  # it has just ended


def _stop(number: int) -> None:
    # Sent while it is blocked: one that the terminal has sent to us as well is then the same one, not a second stop.
    os.kill(os.getpid(), number)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _has_shell(guardian: int) -> bool:
    """Whether somebody could continue this job: a process of another group in our session has started one of ours.

    It is the kernel's own rule for who may be stopped from the terminal (`orphaned process group` in setpgid(2));
    the kernel alone would take the guardian for such a process.
    """
    group, session = os.getpgrp(), os.getsid(0)
    for pid in group_members(group):
        with contextlib.suppress(ProcessLookupError):
            parent = parent_of(pid)
            fields = stat_fields(parent)
            if parent != guardian and int(fields[2]) != group and int(fields[3]) == session:
                return True
    return False


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Open the controlling terminal; -1 when there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield terminal
    finally:
        os.close(terminal)
