"""Handing a run over to the daemon of this user's state directory, and being its caller until it ends."""

import os
import signal
from dataclasses import asdict

from helm_sentry import state
from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.control.host import hand_over
from helm_sentry.errors import SentryError
from helm_sentry.launch.caller import hold_signals, wait_for
from helm_sentry.launch.relay import end_as
from helm_sentry.options import Options
from helm_sentry.receipt.keyring import key_descriptor


def run(options: Options) -> int | None:
    """Have the daemon run an agent and return the exit status to end with; None where the run must be our own.

    Raises:
        SentryError: the daemon refused, or the supervisor failed.
    """
    if key_descriptor(os.environ) >= 0 or any(os.isatty(descriptor) for descriptor in range(3)):
        return None  # neither a key on a descriptor nor the control of a terminal can be handed over
    directory = _here()
    try:
        mask = hold_signals()
        handed = hand_over(_socket(), _request(options), [0, 1, 2, directory])
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
        handed = hand_over(_socket(), _request(options) | {"detach": True}, [nothing, nothing, nothing, directory])
    finally:
        os.close(nothing)
        os.close(directory)
    if handed is None:
        raise SentryError("there is no daemon to leave the run to; start `helm-sentry daemon`")
    connection, run = handed
    connection.close()
    return run


def _socket() -> str:
    return os.path.join(state.daemon_directory(), "runs")


def _here() -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _request(options: Options) -> Fields:
    os.umask(umask := os.umask(0o077))
    asked = {name: value for name, value in asdict(options).items() if name not in ("probe", "hosted")}
    return {"options": asked, "environment": dict[str, Json](os.environ), "umask": umask}
