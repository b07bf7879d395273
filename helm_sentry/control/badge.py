"""The badge of a supervisor: an abstract Unix socket with its process id in the name.

A supervisor connects for its agent, so that to whoever listens the agent looks like the user. Every gate of this
machine, whosever state directory it is in, knows supervisors by this, and turns them away. The kernel says whose the
socket is, and takes it away with the process. Another network namespace has badges of its own.
"""

import contextlib
import os
import socket
import threading

from helm_sentry.control.peer import peer_of
from helm_sentry.errors import SentryError

_NAME = "\0helm-sentry/supervisor/{}"
_BACKLOG = 64
_PATIENCE = 1.0  # seconds


class Badge:
    """Says that this process is a supervisor, until it is closed.

    Raises:
        SentryError: somebody else has taken its name.
    """

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._listener.bind(_NAME.format(os.getpid()))
        except OSError as error:
            self._listener.close()
            raise SentryError(f"the supervisor's badge cannot be had: {error.strerror}") from error
        self._listener.listen(_BACKLOG)
        self._thread = threading.Thread(target=self._answer, name="badge", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take it off."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                self._listener.accept()[0].close()


def has_badge(pid: int) -> bool:
    """Whether a process is a supervisor; one that might be and does not answer counts as one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(_NAME.format(pid))
            return peer_of(connection).pid == pid
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
