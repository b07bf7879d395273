"""What a run says on the terminal: each distinct denial once, with the lines that would allow it.

Written by a thread of its own: a terminal that is stopped, or a pipe nobody reads, must not hold up an answer.
"""

import os
import queue
import re
import threading

from helm_sentry.decision import Decision, Reason
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.dry_run import performed
from helm_sentry.policy.explain import sentence, suggestion

_MOST_CAUSES = 40  # printed; beyond that a person reads the log
_PREFIX = "helm-sentry: "
_A_PROCESS = re.compile(r"/proc/[0-9]+")


class Reporter:
    """Prints to standard error, never on the caller's thread."""

    def __init__(self, quiet: bool = False, enforcing: bool = True) -> None:
        self._quiet, self._enforcing = quiet, enforcing
        self._seen: set[tuple[Kind, str, str]] = set()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._print, name="reporter", daemon=True)
        self._thread.start()

    def denied(self, operation: Operation, decision: Decision, exists: bool) -> None:
        """Tell about a denial, unless the same was told before or it only felt its way about."""
        cause = (operation.kind, operation.target, decision.rule)
        if self._quiet or cause in self._seen or _feels_its_way(operation, exists):
            return
        self._seen.add(cause)
        if len(self._seen) == _MOST_CAUSES + 1:
            self.say("more was denied; the log has all of it")
        elif len(self._seen) <= _MOST_CAUSES:
            would_be = "" if self._enforcing or not performed(operation, decision) else "would be "
            self.say(f"{would_be}denied: {sentence(operation, decision)}")
            # No allow rule helps against a block rule.
            if decision.reason is Reason.DEFAULT and (lines := suggestion(operation)):
                self._lines.put("  to allow it, add to the policy:\n" + _indented(lines))

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._lines.put(_PREFIX + text)

    def close(self) -> None:
        """Print what is left, but do not wait for ever for a reader that does not read."""
        self._lines.put(None)
        self._thread.join(timeout=2)

    def _print(self) -> None:
        while (text := self._lines.get()) is not None:
            try:
                os.write(2, text.encode("utf-8", "replace") + b"\n")
            except OSError:
                return  # nobody listens any more


def _feels_its_way(operation: Operation, exists: bool) -> bool:
    """Whether a person can learn nothing from a denial: it is in the log, but what it refused is what programs try."""
    if operation.kind is Kind.FILE_STAT:
        # `ps` asks who owns each process there is before it reads about it.
        return not exists or bool(_A_PROCESS.fullmatch(operation.path))
    # The C library asks for a name service that most machines do not run.
    return operation.kind is Kind.UNIX_CONNECT and bool(operation.path) and not exists


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
