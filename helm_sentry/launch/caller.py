"""The caller of a hosted run: the `helm-sentry run` that somebody started, while the supervisor is the host's child.

A stream between the two. The caller sends a byte a signal, marked where it was the terminal's; the supervisor sends how
the agent ended, as a line.
A caller that is gone has the run ended, as it would end if it were the supervisor itself.
"""

import _signal
import _socket
import _thread
import os
import sys

from helm_sentry.errors import SentryError
from helm_sentry.launch.signals import FROM_KERNEL, RELAYED

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only annotations need; `typing`, too, takes longer to load than all that is here
    from collections.abc import Callable, Mapping

_CHUNK = 4096
_KERNEL = 0x80  # marks a signal of the terminal's


class Caller:
    """The supervisor's end.

    Args:
        connection: the stream's descriptor, -1 if there is no caller.
    """

    def __init__(self, connection: int) -> None:
        self._connection = connection

    @property
    def descriptors(self) -> frozenset[int]:
        """What to wait on: one descriptor, or none."""
        return frozenset({self._connection} if self._connection >= 0 else ())

    def pass_on(self, agent: int, instead: "Mapping[int, Callable[[], None]]") -> bool:
        """Send the agent what the caller was sent, as `Relay` does; False when the caller is gone.

        Args:
            agent: the agent's main program.
            instead: what is done about a signal that a process sent, where it is not passed on.
        """
        try:
            numbers = os.read(self._connection, _CHUNK)
        except OSError:
            return False
        for number in numbers:
            if number in instead:
                instead[number]()
            elif (plain := number & ~_KERNEL) in RELAYED:
                try:
                    os.kill(agent, plain)
                except ProcessLookupError:
                    break  # it has just ended
        return bool(numbers)

    def forget(self) -> int:
        """Expect nothing more from it; returns what it was waited for on."""
        connection, self._connection = self._connection, -1
        return connection


def tell(connection: int, **ended: int) -> None:
    """Tell a caller how the run ended: `status`, the agent's wait status, or `exit`, the supervisor's own.

    All that must last is on the disk by now, and nothing is printed any more: whoever reads the caller's output sees
    its end at once, and not when the kernel has taken this process apart, which is 3 ms later.
    """
    _give_back_streams()
    try:
        os.write(connection, b"".join(f"{name} {number}\n".encode() for name, number in ended.items()))
    except OSError:
        return  # it is gone, and hears it from nobody


def _give_back_streams() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def wait_for(connection: _socket.socket) -> dict[str, int]:
    """Be the caller, whose signals are held: pass them on until the run has ended, and return what `tell` was given.

    Raises:
        SentryError: the supervisor was killed; its agent is ended.
    """
    # Not a signalfd, nor `threading`, nor JSON: to load those takes longer than all that a forked run's caller does.
    _thread.start_new_thread(_pass_on, (connection,))
    ended = b""
    while not ended.endswith(b"\n"):
        ended += (part := connection.recv(_CHUNK))
        if not part:
            raise SentryError("the supervisor was killed; the agent was ended")
    name, number = ended.split()
    return {name.decode(): int(number)}


def _pass_on(connection: _socket.socket) -> None:
    try:
        while True:
            came = _signal.sigwaitinfo(RELAYED)
            connection.send(bytes([came.si_signo | (_KERNEL if came.si_code == FROM_KERNEL else 0)]))
    except OSError:
        return  # the run has ended


def hold_signals() -> set[int]:
    """Keep the signals that `wait_for` passes on from this process, and return the mask there was."""
    return {int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, RELAYED)}
