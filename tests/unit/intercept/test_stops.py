"""Every wait status a seized thread can give, by itself and from a real process."""

import os
import signal

import pytest

from helm_sentry.intercept.stops import Stop, What, classify

TRAP = signal.SIGTRAP
STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def stopped(number: int, event: int = 0) -> int:
    return event << 16 | number << 8 | 0x7F


TABLE = {
    "exit 0": (0, Stop(What.ENDED)),
    "exit 1": (1 << 8, Stop(What.ENDED)),
    "exit 255": (255 << 8, Stop(What.ENDED)),
    "core dumped": (signal.SIGSEGV | 0x80, Stop(What.ENDED)),
    "continued": (0xFFFF, Stop(What.CONTINUED)),
    "syscall": (stopped(TRAP | 0x80), Stop(What.RETURNED)),
    "fork": (stopped(TRAP, 1), Stop(What.STARTED)),
    "vfork": (stopped(TRAP, 2), Stop(What.STARTED)),
    "clone": (stopped(TRAP, 3), Stop(What.STARTED)),
    "exec": (stopped(TRAP, 4), Stop(What.EXECUTED)),
    "vfork done": (stopped(TRAP, 5), Stop(What.STARTED)),
    "exit event": (stopped(TRAP, 6), Stop(What.ENDING)),
    "seccomp": (stopped(TRAP, 7), Stop(What.SECCOMP)),
    "new thread, or continued": (stopped(TRAP, 128), Stop(What.TRAPPED)),
    "a breakpoint is a signal": (stopped(TRAP), Stop(What.SIGNALLED, TRAP)),
}


@pytest.mark.parametrize(("status", "stop"), TABLE.values(), ids=TABLE)
def test_table(status: int, stop: Stop) -> None:
    assert classify(status) == stop


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_every_signal_kills_and_is_delivered(number: int) -> None:
    assert classify(number) == Stop(What.ENDED)
    assert classify(stopped(number)) == Stop(What.SIGNALLED, number)


@pytest.mark.parametrize("number", STOPPING)
def test_a_stopping_signal_is_told_from_its_delivery_by_the_event(number: int) -> None:
    assert classify(stopped(number, 128)) == Stop(What.GROUP_STOPPED, number)
    assert classify(stopped(number)) == Stop(What.SIGNALLED, number)


@pytest.mark.parametrize(
    "status", [stopped(TRAP, 8), stopped(TRAP, 127), stopped(TRAP, 129), stopped(signal.SIGSTOP, 7), stopped(0, 4)]
)
def test_what_no_kernel_says_has_no_meaning(status: int) -> None:
    with pytest.raises(ValueError, match="has no meaning"):
        classify(status)


def test_real_statuses() -> None:
    """The control: the table speaks of what this kernel's wait(2) returns."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(3)
    seen = []
    for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
        os.kill(child, number)
        seen.append(classify(os.waitpid(child, os.WUNTRACED | os.WCONTINUED)[1]))
    assert seen == [Stop(What.SIGNALLED, signal.SIGSTOP), Stop(What.CONTINUED), Stop(What.ENDED)]
