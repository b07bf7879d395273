"""At a real terminal: prompts, job control, interrupts, window size, hang-up. Every dialogue is held natively too."""

import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from helm_sentry.intercept.process_tree import status_field
from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.every_tier]

PATIENCE = 30.0  # seconds until an expected answer counts as missing
INTERRUPT, QUIT, SUSPEND = "\x03", "\x1c", "\x1a"
SHELL = ("bash", "--noprofile", "--norc", "-i")


class Terminal:
    """A pseudo-terminal, and a process that leads a session on it."""

    def __init__(self, sandbox: Sandbox, command: Sequence[str]) -> None:
        self.master, self.slave = os.openpty()
        self.name = os.ttyname(self.slave)
        os.fchown(self.slave, sandbox.uid, -1)
        self.resize(24, 80)
        self.said = ""
        self.process = sandbox.popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until what was said after the last expected text matches."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.said)) is None:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.master], [], [], left)[0], f"no {pattern!r} in {self.said!r}"
            self.said += os.read(self.master, 4096).decode()
        self.said = self.said[found.end() :]
        return found

    def foreground(self) -> int:
        return os.tcgetpgrp(self.master)

    def await_foreground(self, change_from: int) -> int:
        """Wait until another process group than `change_from` has the terminal, and return it."""
        deadline = time.monotonic() + PATIENCE
        while (group := self.foreground()) == change_from:
            assert time.monotonic() < deadline, f"still {change_from}"
            select.select([], [], [], 0.005)
        # A shell gives a stopped job the terminal before it lets it go on, which forgets a stop that came in between.
        while status_field(group, "State").startswith("T"):
            assert time.monotonic() < deadline, f"{group} is still stopped"
            select.select([], [], [], 0.005)
        return group

    def wait(self) -> int:
        """Return how the process ended; what it says on its way out is read, or it could not end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said
            if select.select([self.master], [], [], 0.005)[0]:
                self.said += os.read(self.master, 4096).decode()
        return self.process.returncode

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in {self.master, self.slave} - {-1}:
            os.close(descriptor)


Start = Callable[..., Terminal]


@pytest.fixture(params=["native", "supervised"])
def wrap(request: pytest.FixtureRequest, sandbox: Sandbox) -> Callable[[Sequence[str]], Sequence[str]]:
    """What to type to get a command: itself, or the command under the supervisor."""
    return sandbox.argv if request.param == "supervised" else lambda command: command


@pytest.fixture
def start(sandbox: Sandbox) -> Iterator[Start]:
    """Start a command on a terminal of its own."""
    started: list[Terminal] = []

    def open_terminal(command: Sequence[str]) -> Terminal:
        started.append(Terminal(sandbox, command))
        return started[-1]

    yield open_terminal
    for terminal in started:
        terminal.close()


def ready_shell(start: Start, command: Sequence[str]) -> Terminal:
    """Start a shell whose prompt can be told from what is typed."""
    terminal = start(command)
    terminal.type("PS1='READY''> '; stty -echo\n")
    terminal.expect(r"\r\nREADY> ")
    return terminal


def test_a_shell_has_its_terminal_and_job_control(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = ready_shell(start, wrap(SHELL))
    shell = terminal.foreground()
    terminal.type("tty; stty size; echo $- | grep -c m\n")
    terminal.expect(rf"{terminal.name}\r\n24 80\r\n1\r\nREADY> ")
    terminal.resize(50, 132)
    terminal.type("stty size\n")
    terminal.expect(r"50 132\r\nREADY> ")
    terminal.type("sh -c 'echo up; exec sleep 100'\n")
    terminal.expect(r"\bup\r\n")  # until it has begun, a shell's child ignores the keys as its shell does
    job = terminal.foreground()
    assert job != shell
    terminal.type(SUSPEND)
    terminal.expect(r"\[1\]\+  Stopped +sh -c .*\r\nREADY> ")
    assert terminal.foreground() == shell
    terminal.type("sleep 200 & jobs\n")
    terminal.expect(r"\[1\]\+  Stopped +sh -c .*\r\n\[2\]-  Running +sleep 200 &\r\nREADY> ")
    terminal.type("fg %1\n")
    assert terminal.await_foreground(shell) == job
    terminal.type(INTERRUPT)
    terminal.expect(r"exec sleep 100'\r\n\r\nREADY> ")
    terminal.type("echo status $?; kill %2; wait %2; echo status $?\n")
    terminal.expect(r"status 130\r\n(?s:.*)status 143\r\n")
    terminal.type("cat | tr a-z A-Z\n")
    terminal.await_foreground(shell)
    terminal.type("typed\n\x04")
    terminal.expect(r"TYPED\r\nREADY> ")
    terminal.type("exit 3\n")
    assert terminal.wait() == 3
    assert "denied:" not in terminal.said


@pytest.mark.parametrize(("key", "number"), [(INTERRUPT, signal.SIGINT), (QUIT, signal.SIGQUIT)])
def test_a_key_ends_the_agent(start: Start, wrap: Callable[..., Sequence[str]], key: str, number: int) -> None:
    terminal = start(wrap(["sh", "-c", "echo up; exec sleep 100"]))
    terminal.expect(r"\bup\r\n")
    terminal.type(key)
    assert terminal.wait() == -number


# The handlers write by themselves: a print interrupted by a print is an error.
COUNTS = """
import os, signal, sys
seen = []
def handle(number, frame):
    seen.append(number)
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, handle)
os.write(1, b"up\\n")
os.read(0, 1)
print("seen", len(seen))
sys.exit(4)
"""


def test_an_agent_that_handles_signals_gets_each_once(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = start(wrap([PYTHON, "-c", COUNTS]))
    terminal.expect(r"\bup\r\n")
    terminal.type(INTERRUPT)
    terminal.expect("SIGINT\r\n")
    terminal.process.terminate()
    terminal.expect("SIGTERM\r\n")
    terminal.type("\n")
    terminal.expect("seen 2\r\n")
    assert terminal.wait() == 4


RESIZED = """
import os, signal
signal.signal(signal.SIGWINCH, lambda number, frame: None)
print("up", *os.get_terminal_size(), flush=True)
signal.sigwait([signal.SIGWINCH])
print("resized", *os.get_terminal_size(), flush=True)
"""


def test_an_agent_hears_of_a_new_window_size(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    program = RESIZED.replace("print", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH]); print", 1)
    terminal = start(wrap([PYTHON, "-c", program]))
    terminal.expect("up 80 24\r\n")
    terminal.resize(50, 132)
    terminal.expect("resized 132 50\r\n")
    assert terminal.wait() == 0


def test_a_hang_up_ends_the_agent(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = start(wrap(["sh", "-c", "echo up; exec sleep 100"]))
    terminal.expect(r"\bup\r\n")
    terminal.hang_up()
    assert terminal.process.wait(PATIENCE) == -signal.SIGHUP


def test_without_a_shell_nothing_is_stopped(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = start(wrap(["sh", "-c", "echo up; read -r line; echo got $line; exit 6"]))
    terminal.expect(r"\bup\r\n")
    terminal.type(SUSPEND + "something\n")
    terminal.expect("got something\r\n")
    assert terminal.wait() == 6


def test_a_stopped_job_goes_on(sandbox: Sandbox, start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = ready_shell(start, SHELL)
    shell = terminal.foreground()
    job = wrap(["sh", "-c", "echo up; read -r line; echo got $line; exit 6"])
    terminal.type(shlex.join(job) + "\n")
    terminal.expect(r"\bup\r\n")
    for _ in range(3):
        terminal.type(SUSPEND)
        terminal.expect(r"\[1\]\+  Stopped .*\r\nREADY> ")
        assert terminal.foreground() == shell
        terminal.type("fg\n")
        terminal.await_foreground(shell)
    terminal.type("something\n")
    terminal.expect(r"got something\r\n(?s:.*)READY> ")
    terminal.type("echo status $?\n")
    terminal.expect("status 6\r\n")


def test_an_interrupted_job_says_so(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = ready_shell(start, SHELL)
    terminal.type(shlex.join(wrap(["sh", "-c", "echo up; exec sleep 100"])) + "\n")
    terminal.expect(r"\bup\r\n")
    terminal.type(INTERRUPT)
    terminal.expect("READY> ")
    terminal.type("echo status $?\n")
    terminal.expect("status 130\r\n")


def test_a_background_job_that_reads_is_stopped(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = ready_shell(start, SHELL)
    shell = terminal.foreground()
    terminal.type(shlex.join(wrap(["sh", "-c", "read -r line; echo got $line"])) + " &\n")
    terminal.expect("READY> ")
    terminal.type("wait %1; jobs\n")
    terminal.expect(r"\[1\]\+  Stopped ")
    terminal.type("fg\n")
    terminal.await_foreground(shell)
    terminal.type("something\n")
    terminal.expect("got something\r\n")


def test_a_shell_within_suspends_itself(start: Start, wrap: Callable[..., Sequence[str]]) -> None:
    terminal = ready_shell(start, SHELL)
    outer = terminal.foreground()
    terminal.type(shlex.join(wrap(SHELL)) + "\n")
    terminal.await_foreground(outer)
    terminal.type("PS1='IN''NER> '\n")
    terminal.expect("INNER> ")
    for _ in range(2):
        terminal.type("suspend\n")
        terminal.expect(r"Stopped .*\r\nREADY> ")
        terminal.type("fg\n")
        terminal.await_foreground(outer)
        terminal.type("echo back $((6 * 7))\n")
        terminal.expect("back 42\r\n")
    terminal.type("exit 5\n")
    terminal.expect("READY> ")
    terminal.type("echo status $?\n")
    terminal.expect("status 5\r\n")


def test_a_line_for_the_user_stops_nobody(sandbox: Sandbox, start: Start) -> None:
    terminal = ready_shell(start, sandbox.argv(SHELL))
    terminal.type("stty tostop; cat /etc/shadow; echo status $?\n")
    terminal.expect(r"status 1\r\n")
    terminal.type("echo still $((6 * 7))\n")
    terminal.expect(r"still 42\r\n")
    assert subprocess.run(["kill", "-0", str(terminal.process.pid)], check=False).returncode == 0
    terminal.type("exit 0\n")
    assert terminal.wait() == 0
