"""What the broker does about one syscall. Exactly one of these ends each notification.

What is held for the call is let go before the caller runs on: when it closes a FIFO or a socket it has the last of it.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from helm_sentry.abi.flags import ERESTARTSYS
from helm_sentry.audit.record import ActionName
from helm_sentry.intercept.interceptor import Interceptor, Notification


@dataclass(frozen=True, slots=True)
class Value:
    """The supervisor did the work; the syscall returns `number`."""

    word: ClassVar[ActionName] = "value"
    code: ClassVar[int] = 0
    number: int

    def answer(self, listener: Interceptor, notification: Notification, release: Callable[[], None]) -> None:
        """End the syscall."""
        release()
        listener.send_value(notification.id, self.number)


@dataclass(frozen=True, slots=True)
class Errno:
    """The syscall fails with this positive errno, because it was refused or because the work failed."""

    word: ClassVar[ActionName] = "errno"
    code: int

    def answer(self, listener: Interceptor, notification: Notification, release: Callable[[], None]) -> None:
        """End the syscall."""
        release()
        listener.send_errno(notification.id, self.code)


@dataclass(frozen=True, slots=True)
class Inject:
    """The syscall returns a new descriptor, a copy of one of the supervisor's."""

    word: ClassVar[ActionName] = "fd"
    code: ClassVar[int] = 0
    descriptor: int
    close_on_exec: bool

    def answer(self, listener: Interceptor, notification: Notification, release: Callable[[], None]) -> None:
        """End the syscall."""
        listener.inject(notification, self.descriptor, self.close_on_exec, release)


@dataclass(frozen=True, slots=True)
class Continue:
    """The kernel carries the syscall out. Only for rows whose `continue_reason` says why that is safe."""

    word: ClassVar[ActionName] = "continue"
    code: ClassVar[int] = 0

    def answer(self, listener: Interceptor, notification: Notification, release: Callable[[], None]) -> None:
        """End the syscall."""
        release()
        listener.send_continue(notification.id)


@dataclass(frozen=True, slots=True)
class Answered:
    """There is nobody to answer any more, or a worker that verified a continued syscall has answered already."""

    word: ClassVar[ActionName] = "none"
    code: ClassVar[int] = 0

    def answer(self, listener: Interceptor, notification: Notification, release: Callable[[], None]) -> None:
        """Do nothing."""


Action = Value | Errno | Inject | Continue | Answered


@dataclass(frozen=True, slots=True)
class Later:
    """The rest may wait for the agent or the world, so a worker thread does it.

    Attributes:
        work: does the rest and returns the action; may raise like a handler.
    """

    work: Callable[[], Action]


SUCCESS = Value(0)


def errno_name(code: int) -> str:
    """Return the symbolic name of an error."""
    return "ERESTARTSYS" if code == ERESTARTSYS else errno.errorcode.get(code, str(code))
