"""One operation, really tried from inside the confinement: what the kernel and the supervisor make of it.

Nothing is written, removed or sent. A file or socket that is made is for the caller to remove.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping

from helm_sentry.operation import Kind, Operation

_PATIENCE = 2.0  # seconds for a connect
_QUIET = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def attempt(operation: Operation) -> int:
    """Try an operation and return the errno it ends with, 0 when it succeeds. An exec that succeeds does not return."""
    try:
        TRIALS[operation.kind](operation)
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _open(flags: int) -> Callable[[Operation], None]:
    def trial(operation: Operation) -> None:
        os.close(os.open(operation.path, flags | _QUIET, 0o600))

    return trial


def _stat(operation: Operation) -> None:
    os.stat(operation.path)


def _execute(operation: Operation) -> None:
    os.closerange(0, 3)  # it is not to read or say anything
    os.execv(operation.path, operation.argv or (operation.path,))


def _connect(operation: Operation) -> None:
    with _socket(operation) as trial:
        trial.connect((operation.address, operation.port))


def _bind(operation: Operation) -> None:
    with _socket(operation) as trial:
        trial.bind((operation.address, operation.port))


def _socket(operation: Operation) -> socket.socket:
    family = socket.AF_INET6 if ":" in operation.address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if operation.protocol == "udp" else socket.SOCK_STREAM)
    made.settimeout(_PATIENCE)
    return made


def _connect_unix(operation: Operation) -> None:
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(_PATIENCE)
        trial.connect(operation.path)


def _bind_unix(operation: Operation) -> None:
    with socket.socket(socket.AF_UNIX) as trial:
        trial.bind(operation.path)


TRIALS: Mapping[Kind, Callable[[Operation], None]] = {
    Kind.FILE_READ: _open(os.O_RDONLY),
    Kind.FILE_LIST: _open(os.O_RDONLY | os.O_DIRECTORY),
    Kind.FILE_WRITE: _open(os.O_WRONLY),
    Kind.FILE_CREATE: _open(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    Kind.FILE_STAT: _stat,
    Kind.EXEC: _execute,
    Kind.NET_CONNECT: _connect,
    Kind.NET_BIND: _bind,
    Kind.UNIX_CONNECT: _connect_unix,
    Kind.UNIX_BIND: _bind_unix,
}
"""What can be tried without harm."""
