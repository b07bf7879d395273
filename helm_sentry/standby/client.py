"""A `helm-sentry run` that has a standby: everything it does until it ends, before anything else is loaded.

    <state>/standby/socket

It sends its standard input, output, error and its directory, and its words (`standby/words.py`); is told that it was
taken, says `!`, and from there on is the caller of a hosted run (`launch/caller.py`). Until it has said so nothing was
done, so whatever does not fit, or takes too long, is an ordinary start.

`_signal`, `_socket` and `_struct` are what `signal`, `socket` and `struct` give names to: the names take as long as the
rest of all this.
"""

import _signal
import _socket
import _struct
import os
import sys

from helm_sentry import state
from helm_sentry.errors import SentryError, printable
from helm_sentry.launch.caller import hold_signals, wait_for
from helm_sentry.launch.signals import end_as
from helm_sentry.standby.words import own_words, packed

GO = b"!"
_ALONE, _OURS = "--alone", "HELM_SENTRY_"
_PATIENCE = 2.0  # seconds until a standby that says nothing is left alone
_CREDENTIALS = _struct.Struct("=iII")  # struct ucred in unix(7); `control/peer.py` loads more than this
_DESCRIPTORS = _struct.Struct("=4i")


def run() -> int | None:
    """Have a run forked, wait for its end and return the exit status; None where the start must be an ordinary one."""
    if _is_bound_here():
        return None
    mask = hold_signals()
    connection = None if mask else _taken()
    if connection is None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        return None
    try:
        ended = wait_for(connection)
    except SentryError as error:
        print(f"helm-sentry: {printable(str(error))}", file=sys.stderr)
        return error.exit_status
    return ended["exit"] if "exit" in ended else end_as(ended["status"])


def _is_bound_here() -> bool:
    """Whether a daemon hosts the runs, we are told something in variables or to be alone, or there is a terminal."""
    return (
        _ALONE in sys.argv  # if it is the agent's word, no harm is done
        or os.path.exists(os.path.join(state.daemon_directory(), "runs"))
        or any(name.startswith(_OURS) for name in os.environ)
        or any(os.isatty(descriptor) for descriptor in range(3))
    )


def _taken() -> _socket.socket | None:
    """Return a connection to a fork that waits to become our run; None where there is none."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(state.standby_socket())
        data = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(data)[1] == os.geteuid() and _ask(connection):
            connection.settimeout(None)
            return connection
    except OSError:  # it is gone, or does not answer
        pass
    connection.close()
    return None


def _ask(connection: _socket.socket) -> bool:
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passed = _DESCRIPTORS.pack(0, 1, 2, directory)
        connection.sendmsg([b" "], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
    finally:
        os.close(directory)
    connection.sendall(packed(own_words()))
    if connection.recv(1) != GO:
        return False
    connection.sendall(GO)
    return True
