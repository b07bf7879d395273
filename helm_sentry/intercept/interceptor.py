"""What the broker needs of a tier: how calls arrive, and how they end. It does not know which tier it serves."""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Notification(NamedTuple):
    """One syscall that waits for its answer.

    Attributes:
        id: a name for it that no other call of the run has had.
        tid: thread id of the caller in the supervisor's PID namespace.
        nr: syscall number as the caller gave it.
        arch: AUDIT_ARCH_* of the ABI it was called through.
        args: the six argument registers.
    """

    id: int
    tid: int
    nr: int
    arch: int
    args: tuple[int, ...]


class Connecting(NamedTuple):
    """A connect that was decided, recorded and begun, and may take its time.

    Attributes:
        descriptor: a duplicate of the caller's socket; whoever takes it closes it.
        address: the sockaddr, as it was judged.
    """

    descriptor: int
    address: bytes


class Unserved(NamedTuple):
    """What the compiled receiver leaves to the broker.

    Attributes:
        notification: the waiting call.
        sequence: of the record, when the receiver wrote it and then could not finish; else -1.
        error: the errno the caller is to get then, such as EMFILE where its table is full.
        connecting: what is to be gone on with instead.
    """

    notification: Notification
    sequence: int = -1
    error: int = 0
    connecting: Connecting | None = None


class Watched(NamedTuple):
    """A thread that stopped under a `Watch`.

    Attributes:
        pid: its id now; a thread that executes a program takes its leader's.
        executed: it has become a new program, none of which has run; otherwise its call has returned.
    """

    pid: int
    executed: bool


class Watch(Protocol):
    """A call that is left to the kernel and looked at before its thread runs on. Belongs to one worker thread."""

    def proceed(self) -> None:
        """Let the call go on."""

    def abandon(self) -> None:
        """Answer EPERM instead, and let go."""

    def wait(self) -> Watched | None:
        """Wait until the call has returned or has become a new program; None when the thread has ended."""

    def release(self) -> None:
        """Let the stopped thread run on."""

    def reap(self) -> None:
        """See the end of a thread that dies."""


class Interceptor(Protocol):
    """Where the agent's calls arrive. `receive` belongs to one thread, everything else to any."""

    @property
    def received(self) -> int:
        """Calls so far."""

    @property
    def continued(self) -> int:
        """Calls that the kernel was told to carry out, or is about to be told."""

    def attach(self) -> None:
        """Called once, first, on the thread that will receive."""

    def receive(self) -> Notification | None:
        """Wait for the next call; None when there is none after all, because its caller was killed."""

    def alive(self, notification_id: int) -> bool:
        """Whether the caller still waits, so that what was read under its thread id was really its own."""

    def send_value(self, notification_id: int, value: int) -> None:
        """End the syscall with a return value."""

    def send_errno(self, notification_id: int, code: int) -> None:
        """End the syscall with an error; `code` is the positive errno."""

    def send_continue(self, notification_id: int) -> None:
        """Let the kernel carry the syscall out."""

    def inject(
        self, notification: Notification, descriptor: int, close_on_exec: bool, release: Callable[[], None]
    ) -> None:
        """Put a copy of `descriptor` into the caller, `release` ours, and return its number there.

        Raises:
            OSError: the caller's descriptor table is full (EMFILE) or the kernel refused; the caller still waits.
        """

    def watch(self, notification: Notification) -> Watch:
        """Begin to watch a caller that still waits.

        Raises:
            ProcessLookupError: the caller died, or its thread id is somebody else's by now.
            PermissionError: the kernel keeps the caller from us.
        """

    def is_stopped(self, pid: int) -> bool:
        """Whether job control has stopped a process."""

    def ready(self) -> None:
        """Return when calls are received, so that the agent may begin."""
