"""Approvals: syscalls that wait for a person. Time denies; each answer is a record with its approver.

A held call takes no thread: it is a line in a table until somebody answers, its time is over, or its thread is gone.
"""

import threading
import time
from collections.abc import Callable

from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.question import Approver, Choice, Question, in_words
from helm_sentry.control.standing import Standing, key_of
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import AuditError, UsageError
from helm_sentry.operation import Operation

MOST_WAITING = 1024
"""Questions at once; what is asked beyond that is denied."""

_PER_MINUTE = 2048  # questions, so that an agent cannot wear a person out, nor fill the log with them
_REFUSED_FOR = 5.0  # seconds in which what was just denied is denied again without asking
_LOOK_EVERY, _LOOK_COST = 0.02, 0.001  # seconds between looks at those that wait, and more for each


class Approvals:
    """The questions of one run.

    Args:
        wait: seconds until a question that nobody answers is denied.
        standing: answers that were given for good.
        append: writes a record.
        on_change: called when there is a question more or less, on any thread; must not wait.
        on_failure: called when a record cannot be written; the run must end.
    """

    def __init__(
        self,
        wait: float,
        standing: Standing,
        append: Callable[[Fields], int],
        on_change: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._wait, self._standing, self._append = wait, standing, append
        self._on_change, self._on_failure = on_change, on_failure
        self._lock = threading.Lock()
        self._questions: dict[int, Question] = {}
        self._last, self._recent = 0, list[float]()
        self._allowed = standing.load()
        self._refused: dict[tuple[str, str], float] = {}
        self._wakes = threading.Event()
        threading.Thread(target=self._keep_time, name="approvals", daemon=True).start()

    def remembered(self, operation: Operation, about: tuple[str, ...], decision: Decision) -> Decision:
        """Return what an earlier answer makes of a decision that asks for approval; itself if there is none."""
        key = decision.rule, key_of(operation, about)
        if key in self._allowed:
            return Decision(Verdict.ALLOW, Reason.APPROVED, decision.rule)
        if self._refused.get(key, 0.0) > time.monotonic():
            return Decision(Verdict.DENY, Reason.DISAPPROVED, decision.rule, "it was denied a moment ago")
        return decision

    def ask(self, question: Question) -> None:
        """Put a question. Never waits; the answer comes by `question.resume`."""
        now = time.monotonic()
        with self._lock:
            self._recent = [moment for moment in self._recent if now - moment < 60]
            refusal = _too_many(len(self._questions), len(self._recent))
            if not refusal:
                self._last += 1
                self._recent.append(now)
                question.number, question.expires = self._last, now + self._wait
                self._questions[question.number] = question
        if refusal:
            question.resume(Decision(Verdict.DENY, Reason.UNANSWERED, question.rule, refusal))
            return
        self._wakes.set()
        self._on_change()

    def waiting(self) -> list[Question]:
        """Return the questions that wait, the oldest first."""
        with self._lock:
            return list(self._questions.values())

    def answer(self, number: int, choice: Choice, by: Approver, digest: str = "") -> Question:
        """Answer a question; the call is carried out, or refused, at once.

        Args:
            number: the question's.
            choice: the answer.
            by: who answers.
            digest: hash of the arguments that the answer is about; empty for whatever the question is about.

        Raises:
            UsageError: no such question waits.
            AuditError: the answer cannot be recorded; the call stays refused.
        """
        question = self._take(number, digest)
        if question is None:
            raise UsageError(f"no question {number} waits: it was answered, its time is over, or its process is gone")
        allowed = choice is not Choice.DENY
        try:
            self._append(record.approval(question.sequence, number, choice, str(by), question.digest))
            self._remember(question, choice, by)
        except (AuditError, OSError) as error:
            self._settle(question, Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR, question.rule, str(error)))
            self._on_failure(error)
            raise
        verdict, reason = (Verdict.ALLOW, Reason.APPROVED) if allowed else (Verdict.DENY, Reason.DISAPPROVED)
        self._settle(question, Decision(verdict, reason, question.rule, "" if allowed else f"by {by}"))
        return question

    def _remember(self, question: Question, choice: Choice, by: Approver) -> None:
        for operation, decision in question.asked:
            key = decision.rule, key_of(operation, question.about)
            if choice is Choice.ALWAYS:
                self._standing.add(*key, (*in_words(operation), *question.about), by)
            if choice in (Choice.RUN, Choice.ALWAYS):
                self._allowed = self._allowed | {key}
            elif choice is Choice.DENY:
                now = time.monotonic()
                kept = {old: until for old, until in self._refused.items() if until > now}
                self._refused = kept | {key: now + _REFUSED_FOR}

    def _take(self, number: int, digest: str = "") -> Question | None:
        with self._lock:
            question = self._questions.get(number)
            if question and digest not in ("", question.digest):
                raise UsageError(f"question {number} is about other arguments")
            return self._questions.pop(number, None)

    def _settle(self, question: Question, decision: Decision) -> None:
        question.resume(decision)
        self._on_change()

    def _keep_time(self) -> None:
        pause = threading.Event()
        while True:
            self._wakes.wait()
            self._wakes.clear()
            while waiting := self.waiting():
                for question in waiting:
                    self._look(question)
                pause.wait(_LOOK_EVERY + _LOOK_COST * len(waiting))

    def _look(self, question: Question) -> None:
        """Deny what nobody has answered in time; let go of a call whose thread is gone or has a signal to handle."""
        late = time.monotonic() >= question.expires
        state = question.state()
        if not (late or state) or self._take(question.number) is None:
            return
        if state:
            question.interrupt(state)
            self._on_change()
        else:
            detail = f"nobody answered within {self._wait:g} s"
            self._settle(question, Decision(Verdict.DENY, Reason.UNANSWERED, question.rule, detail))


def _too_many(waiting: int, recent: int) -> str:
    if waiting >= MOST_WAITING:
        return f"{waiting} questions wait already"
    return f"more than {_PER_MINUTE} questions in a minute" if recent >= _PER_MINUTE else ""
