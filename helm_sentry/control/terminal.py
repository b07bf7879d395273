"""Questions on the run's own terminal: one at a time, by a process of its own that has the terminal meanwhile.

The agent shares the terminal. While a question is open there, the agent stands still and the foreground belongs to the
prompt, so the agent can neither read the answer nor write over the question. What was typed before it is thrown away.
Where there is no terminal, or another job has it, nothing is stopped: the answer comes by command.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable

from helm_sentry.control.approvals import Approvals
from helm_sentry.control.peer import Peer
from helm_sentry.control.question import Approver, Choice, Question
from helm_sentry.errors import SentryError
from helm_sentry.intercept.process_tree import descendants

_LOOK_EVERY = 0.1  # seconds between looks whether a question was answered elsewhere
_MOST_TOLD = 20  # questions that are announced where nobody can be prompted


class Terminal:
    """Asks the person at the terminal, or says there what waits.

    Args:
        run: the run's id, as `helm-sentry approvals` takes it.
        say: prints a line.

    Attributes:
        asking: a prompt has the terminal, so that the agent may be stopped on its account.
    """

    def __init__(self, run: str, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self.asking = False
        self._told, self._guardian, self._stopped = 0, -1, set[int]()
        self._wakes = threading.Event()
        self._interactive = os.isatty(0) and os.isatty(2)

    def start(self, approvals: Approvals, guardian: int) -> None:
        """Begin to ask; all of the agent descends from `guardian`."""
        self._guardian = guardian
        threading.Thread(target=self._ask_all, args=(approvals,), name="terminal", daemon=True).start()

    def changed(self) -> None:
        """Say that there is a question more or less. Never waits."""
        self._wakes.set()

    def _ask_all(self, approvals: Approvals) -> None:
        seen = 0
        while True:
            self._wakes.wait()
            self._wakes.clear()
            while waiting := approvals.waiting():
                new = [question for question in waiting if question.number > seen]
                seen = max(seen, waiting[-1].number)
                if not (self._interactive and self._prompt(approvals, waiting[0])):
                    self._announce(new)
                    break

    def _announce(self, questions: list[Question]) -> None:
        for question in questions:
            self._told += 1
            if self._told <= _MOST_TOLD:
                self._say("waits for approval: " + " ".join(line.strip() for line in question.lines()))
                self._say(f"  to answer: helm-sentry approvals approve|deny {self._run}/{question.number}")
            elif self._told == _MOST_TOLD + 1:
                self._say("more calls wait for approval: helm-sentry approvals list")

    def _prompt(self, approvals: Approvals, question: Question) -> bool:
        """Ask one question; False when the terminal is not ours to ask on."""
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            before, settings = os.tcgetpgrp(terminal), termios.tcgetattr(terminal)
            if before != os.getpgrp() and not _is_below(before):
                return False  # another job has the terminal
            self.asking = True
            choice = self._hold(terminal, before, settings, approvals, question)
        except (OSError, termios.error):
            return False
        finally:
            self.asking = False
            os.close(terminal)
        if choice is not None:
            try:
                approvals.answer(
                    question.number, choice, Approver(os.getuid(), Peer(0, os.getuid()).name, 0, "terminal")
                )
            except SentryError:
                return True  # it was answered elsewhere meanwhile, or the run fails
        return True

    def _hold(
        self, terminal: int, before: int, settings: list[object], approvals: Approvals, question: Question
    ) -> Choice | None:
        """Give the terminal to the prompt until it has an answer or the question is gone; then give it back."""
        text = json.dumps({"lines": question.lines(), "choices": [str(choice) for choice in Choice]}) + "\n"
        (its_input, into), (out_of, its_output) = os.pipe(), os.pipe()
        # -P: nothing in the working directory, which is the agent's, may be loaded.
        command = [sys.executable, "-P", "-m", "helm_sentry.control.prompt"]
        prompt = subprocess.Popen(command, stdin=its_input, stdout=its_output, process_group=0)
        os.close(its_input)
        os.close(its_output)
        try:
            self._stop_agent()
            os.tcsetpgrp(terminal, prompt.pid)
            os.write(into, text.encode())
            while not select.select([out_of], [], [], _LOOK_EVERY)[0]:
                if question not in approvals.waiting():
                    prompt.terminate()
            word = os.read(out_of, 64).decode().strip()
        finally:
            prompt.terminate()
            prompt.wait()
            os.close(into)
            os.close(out_of)
            termios.tcsetattr(terminal, termios.TCSADRAIN, settings)  # type: ignore[arg-type]
            os.tcsetpgrp(terminal, before)
            self._continue_agent()
        return Choice(word) if word in set(Choice) else None

    def _stop_agent(self) -> None:
        # Parents first: none is to learn that its child was stopped. A process may fork until it is reached.
        stopped: set[int] = set()
        while running := [pid for pid in descendants(self._guardian) if pid not in stopped]:
            for pid in running:
                _send(pid, signal.SIGSTOP)
            stopped.update(running)
        self._stopped = stopped

    def _continue_agent(self) -> None:
        for pid in reversed(descendants(self._guardian)):
            if pid in self._stopped:
                _send(pid, signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_below(group: int) -> bool:
    """Whether a process group's leader is in our session, as an agent that is a shell makes one for itself."""
    try:
        return os.getsid(group) == os.getsid(0)
    except ProcessLookupError:
        return False
