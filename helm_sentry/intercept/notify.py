"""The seccomp listener: how a notified syscall arrives and how it is answered. See seccomp_unotify(2)."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable

from helm_sentry.abi import flags, libc, structs
from helm_sentry.errors import FeatureError
from helm_sentry.intercept.interceptor import Notification
from helm_sentry.intercept.process_tree import stat_fields
from helm_sentry.intercept.seizure import Seizure

_UNPACK = structs.SECCOMP_NOTIF.unpack_from
_RESPONSE = structs.SECCOMP_NOTIF_RESP.pack
_ADDFD = structs.SECCOMP_NOTIF_ADDFD.pack
_ZEROES = bytes(structs.SECCOMP_NOTIF.size)
_MISSED = (errno.ENOENT, errno.EINTR)


class Listener:
    """A listener descriptor with preallocated buffers. `receive` belongs to one thread, answers to any.

    Attributes:
        received: notifications so far.
        continued: calls that the kernel was told to carry out, or is about to be told.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = bytearray(structs.SECCOMP_NOTIF.size)
        self.received, self.continued = 0, 0
        self._lock = threading.Lock()
        self.sync_wake_up = self._set_sync_wake_up()
        self._require_atomic_addfd()

    def attach(self) -> None:
        """Do nothing: any thread may receive."""

    def receive(self) -> Notification | None:
        """Wait for the next notification; None when the caller was killed before it could be read."""
        buffer = self._buffer
        buffer[:] = _ZEROES  # the kernel refuses a buffer that is not zero
        try:
            fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_RECV, buffer, True)
        except OSError as error:
            if error.errno in _MISSED:
                return None
            raise
        self.received += 1
        fields = _UNPACK(buffer)
        return Notification(fields[0], fields[1], fields[3], fields[4], fields[6:])

    def alive(self, notification_id: int) -> bool:
        """Whether the caller still waits, so that what was read under its thread id was really its own."""
        try:
            fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_ID_VALID, notification_id.to_bytes(8, "little"))
        except OSError:
            return False
        return True

    def send_value(self, notification_id: int, value: int) -> None:
        """End the syscall with a return value."""
        self._send(_RESPONSE(notification_id, value, 0, 0))

    def send_errno(self, notification_id: int, code: int) -> None:
        """End the syscall with an error; `code` is the positive errno."""
        self._send(_RESPONSE(notification_id, 0, -code, 0))

    def send_continue(self, notification_id: int) -> None:
        """Let the kernel carry the syscall out with whatever its arguments are by then."""
        with self._lock:
            self.continued += 1
        self._send(_RESPONSE(notification_id, 0, 0, flags.SECCOMP_USER_NOTIF_FLAG_CONTINUE))

    def inject(
        self, notification: Notification, descriptor: int, close_on_exec: bool, release: Callable[[], None]
    ) -> None:
        """Put a copy of `descriptor` into the caller, `release` ours, and return its number there.

        Raises:
            OSError: the caller's descriptor table is full (EMFILE) or the kernel refused; the caller still waits.
        """
        # One step (SECCOMP_ADDFD_FLAG_SEND) would do, but if this thread is stopped or frozen at that moment the kernel
        # takes the descriptor back and answers 0 all the same; adding alone is taken up again.
        request = bytearray(_ADDFD(notification.id, 0, descriptor, 0, os.O_CLOEXEC if close_on_exec else 0))
        elsewhere = self._other_processors(notification.tid)
        try:
            if elsewhere is None:
                number = fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_ADDFD, request, True)
            else:
                # The kernel wakes the caller to install the descriptor, and would wake it on an idle processor: two
                # trips across, 50 us each in a virtual machine. While it waits for us it is held to our processor; it
                # runs no instruction of its own until the answer, which is a wake-up on our processor anyway.
                os.sched_setaffinity(notification.tid, (libc.current_processor(),))
                try:
                    number = fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_ADDFD, request, True)
                finally:
                    os.sched_setaffinity(notification.tid, elsewhere)
            release()
            self.send_value(notification.id, number)
        except ProcessLookupError:
            return  # the caller is gone
        except OSError as error:
            if error.errno != errno.ENOENT:  # the caller is gone
                raise

    def watch(self, notification: Notification) -> Seizure:
        """Seize the caller; see `Seizure`."""
        return Seizure(self, notification)

    def is_stopped(self, pid: int) -> bool:
        """Whether job control has stopped a process."""
        try:
            return stat_fields(pid)[0] == b"T"
        except ProcessLookupError:
            return False

    def ready(self) -> None:
        """Return: calls wait at the listener until they are received."""

    def _other_processors(self, tid: int) -> set[int] | None:
        """Return where the caller may run, None when it cannot or need not be steered."""
        if not self.sync_wake_up:
            return None
        try:
            allowed = os.sched_getaffinity(tid)
        except OSError:
            return None
        return allowed if len(allowed) > 1 and libc.current_processor() in allowed else None

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_SEND, response)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise

    def _set_sync_wake_up(self) -> bool:
        """Ask for wake-ups on the caller's processor; kernels before 6.6 do not have it."""
        try:
            fcntl.ioctl(self.descriptor, flags.SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
        except OSError:
            return False
        return True

    def _require_atomic_addfd(self) -> None:
        """Refuse a kernel that cannot add a descriptor and answer in one step (before 5.14)."""
        try:
            fcntl.ioctl(
                self.descriptor,
                flags.SECCOMP_IOCTL_NOTIF_ADDFD,
                _ADDFD(0, flags.SECCOMP_ADDFD_FLAG_SEND, 0, 0, 0),
            )
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise FeatureError(
                    "this kernel cannot hand over a descriptor in one step; Linux 5.14 or newer is needed"
                ) from None
