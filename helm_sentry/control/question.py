"""Questions: what a held syscall asks a person, and what a person may answer. Values."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from helm_sentry.decision import Decision
from helm_sentry.operation import Kind, Operation
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


_LONGEST_SETTING = 1000  # characters
_MOST_SETTINGS = 8000


@dataclass(slots=True, kw_only=True)
class Question:
    """A held syscall.

    Attributes:
        number: its name within the run, from 1; 0 until it is asked.
        tid: thread that waits in the call.
        program: what that thread runs.
        syscall: name of the call.
        asked: the operations that need an answer, each with the decision that says so.
        about: what the operations do not say, such as a mode, in words.
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
    about: tuple[str, ...] = ()
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
        who = f"process {self.tid} ({printable(self.program)})"
        said = [f"{who} asks for {self.syscall}, by rule {printable(self.rule)}:"]
        for operation in self.operations:
            said += [f"  {line}" for line in in_words(operation)]
        return said + [f"    {fact}" for fact in self.about]


def in_words(operation: Operation) -> list[str]:
    """Return what an operation would do, line by line, fit for a terminal."""
    target = operation.target
    if operation.hosts and operation.address:
        target = f"{operation.hosts[0]} ({target})"
    said = [f"{operation.kind} {printable(target)}" + _reach(operation)]
    if operation.argv:
        said.append("  arguments: " + " ".join(f"[{printable(word)}]" for word in operation.argv))
    if operation.environment:
        said.append("  environment: " + _settings(operation.environment))
    if operation.protocol:
        said.append(f"  protocol: {operation.protocol}" + f", {operation.size} bytes" * bool(operation.size))
    return said


def _reach(operation: Operation) -> str:
    # A directory that is deleted is empty, or the kernel refuses.
    return " and all beneath" if operation.directory and operation.kind is not Kind.FILE_DELETE else ""


def _settings(environment: tuple[str, ...]) -> str:
    shown, room = list[str](), _MOST_SETTINGS
    for setting in environment:
        if (room := room - min(len(setting), _LONGEST_SETTING)) < 0:
            break
        shown.append(f"[{_cut(setting)}]")
    more = len(environment) - len(shown)
    return " ".join(shown) + f" and {more} more, which are not shown" * bool(more)


def _cut(setting: str) -> str:
    if len(setting) <= _LONGEST_SETTING:
        return printable(setting)
    return f"{printable(setting[:_LONGEST_SETTING])}... and {len(setting) - _LONGEST_SETTING} characters more"
