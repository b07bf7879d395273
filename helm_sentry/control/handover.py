"""Handing a run over to a host, the daemon or the supervisor above, and being its caller until it ends."""

import os
import shutil
import signal
import socket
from dataclasses import asdict

from helm_sentry import state
from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.control.door import DOOR
from helm_sentry.control.host import hand_over
from helm_sentry.errors import LaunchError, SentryError
from helm_sentry.launch.caller import hold_signals, wait_for
from helm_sentry.launch.signals import end_as
from helm_sentry.options import Options
from helm_sentry.policy.loader import text_of
from helm_sentry.receipt.keyring import key_descriptor


def run(options: Options) -> int | None:
    """Have a host run an agent and return the exit status to end with; None where the run must be our own.

    The host is the daemon, or for an agent that starts another one its own supervisor.

    Raises:
        SentryError: the host refused, or the supervisor failed.
    """
    below = DOOR in os.environ
    if not below and _is_bound_here():
        return None
    directory = _here(options)
    mask = hold_signals()
    try:
        handed = _hand_over(_below(options) if below else _request(options), [0, 1, 2, directory])
    finally:
        os.close(directory)
    if handed is None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return None
    with handed[0] as connection:
        ended = wait_for(connection)
    return ended["exit"] if "exit" in ended else end_as(ended["status"])


def detach(options: Options) -> str:
    """Have the daemon run an agent without us and return the run's id.

    Raises:
        SentryError: there is no daemon, or it refused.
    """
    nothing, directory = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), _here()
    try:
        handed = _hand_over(_request(options) | {"detach": True}, [nothing, nothing, nothing, directory])
    finally:
        os.close(nothing)
        os.close(directory)
    if handed is None:
        raise SentryError("there is no daemon to leave the run to; start `helm-sentry daemon`")
    connection, answer = handed
    connection.close()
    return str(answer["run"])


def drop(policy: str) -> Fields:
    """Give up whatever a policy does not allow; for an agent.

    Args:
        policy: an effective policy, as JSON.

    Raises:
        SentryError: there is no supervisor to ask, or it refused.
    """
    handed = _hand_over({"do": "drop", "policy": policy}, []) if DOOR in os.environ else None
    if handed is None:
        raise SentryError("rights are dropped by an agent that `helm-sentry run` started, and for itself")
    connection, answer = handed
    connection.close()
    return answer


def _is_bound_here() -> bool:
    """Whether there is what cannot be handed over: the control of a terminal, or a key on a descriptor."""
    return key_descriptor(os.environ) >= 0 or any(os.isatty(descriptor) for descriptor in range(3))


def _hand_over(request: Fields, descriptors: list[int]) -> tuple[socket.socket, Fields] | None:
    return hand_over(os.environ.get(DOOR) or os.path.join(state.daemon_directory(), "runs"), request, descriptors)


def _here(options: Options | None = None) -> int:
    place = options.workspace if options and DOOR in os.environ else "."
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _request(options: Options) -> Fields:
    os.umask(umask := os.umask(0o077))
    asked = {name: value for name, value in asdict(options).items() if name not in ("probe", "hosted")}
    return {"options": asked, "environment": dict[str, Json](os.environ), "umask": umask}


def _below(options: Options) -> Fields:
    """Return what an agent asks for: everything it names it has found and read itself, under its own policy."""
    program = shutil.which(options.command[0])
    if program is None:
        raise LaunchError(f"cannot run `{options.command[0]}`: there is no such program", 127)
    command = [os.path.abspath(program), *options.command[1:]]
    asked: Fields = {"command": list[Json](command), "policy": text_of(options.policy), "quiet": options.quiet}
    return asked | {"environment": dict[str, Json](os.environ)}
