"""Questions: what a held syscall asks a person, and what a person may answer. Values."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from helm_sentry.decision import Decision
from helm_sentry.operation import Operation
from helm_sentry.policy.pattern import printable


class Choice(StrEnum):
    """What a person may answer."""

    ONCE = "once"
    """This call, and no other."""
    RUN = "run"
    """This call, and the same operations again until the run ends."""
    ALWAYS = "always"
    """The same in every later run of this very policy, too."""
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Approver:
    """Who answered.

    Attributes:
        uid: user id, as the kernel gave it; -1 for one who came by a certificate.
        name: the user's name.
        pid: the process that brought the answer, 0 for the terminal.
        way: how it came: by `terminal`, by `command`, or by `grpc` and through which process.
    """

    uid: int
    name: str
    pid: int
    way: str

    def __str__(self) -> str:
        uid = f" (uid {self.uid})" if self.uid >= 0 else ""
        return f"{self.name}{uid} by {self.way}" + (f", process {self.pid}" if self.pid else "")


_LONGEST_SETTING = 80


@dataclass(slots=True, kw_only=True)
class Question:
    """A held syscall.

    Attributes:
        number: its name within the run, from 1; 0 until it is asked.
        tid: thread that waits in the call.
        program: what that thread runs.
        syscall: name of the call.
        asked: the operations that need an answer, each with the decision that says so.
        digest: hash of the arguments as they were copied, in hex.
        sequence: the record that says ESCALATE.
        expires: when it is denied, on the clock of time.monotonic(); 0 until it is asked.
        resume: carries the call out again, or refuses it; what it is given says which, and why.
        state: errno that the call ends with now because its thread has a signal; 0 to go on; -1 if it is gone.
        interrupt: ends the call with that errno.
    """

    number: int = 0
    tid: int
    program: str
    syscall: str
    asked: tuple[tuple[Operation, Decision], ...]
    digest: str
    sequence: int
    expires: float = 0.0
    resume: Callable[[Decision], None]
    state: Callable[[], int]
    interrupt: Callable[[int], None]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations that need an answer."""
        return tuple(operation for operation, _ in self.asked)

    @property
    def rule(self) -> str:
        """The rule that asks for approval."""
        return self.asked[0][1].rule

    def lines(self) -> list[str]:
        """Return what exactly would happen, line by line, fit for a terminal."""
        said = [f"process {self.tid} ({printable(self.program)}) asks, by rule {printable(self.rule)}:"]
        for operation in self.operations:
            target = operation.target
            if operation.hosts and operation.address:
                target = f"{operation.hosts[0]} ({target})"
            said.append(f"  {operation.kind} {printable(target)}" + " and all beneath" * operation.directory)
            if operation.argv:
                said.append("    arguments: " + " ".join(f"[{printable(word)}]" for word in operation.argv))
            if operation.environment:
                said.append("    environment: " + " ".join(f"[{_cut(word)}]" for word in operation.environment))
            if operation.protocol:
                said.append(f"    protocol: {operation.protocol}" + f", {operation.size} bytes" * bool(operation.size))
        return said


def _cut(setting: str) -> str:
    return printable(setting if len(setting) <= _LONGEST_SETTING else setting[:_LONGEST_SETTING] + "...")
