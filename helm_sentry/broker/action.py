"""What the broker does about one syscall. Exactly one of these ends each notification."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """The supervisor did the work; the syscall returns `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class Errno:
    """The syscall fails with this positive errno, because it was refused or because the work failed."""

    code: int


@dataclass(frozen=True, slots=True)
class Inject:
    """The syscall returns a new descriptor, a copy of one of the supervisor's."""

    descriptor: int
    close_on_exec: bool


@dataclass(frozen=True, slots=True)
class Continue:
    """The kernel carries the syscall out. Only for rows whose `continue_reason` says why that is safe."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The worker that verified a continued syscall has answered already, or killed the process."""

    killed: bool = False


Action = Value | Errno | Inject | Continue | Answered


@dataclass(frozen=True, slots=True)
class Later:
    """The rest may wait for the agent or the world, so a worker thread does it.

    Attributes:
        work: does the rest and returns the action; may raise like a handler.
    """

    work: Callable[[], Action]


SUCCESS = Value(0)
