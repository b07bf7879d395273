"""Options that choose whose runs are meant: those of this machine's user, or those of a daemon."""

import functools
from collections.abc import Callable
from typing import Any

import click

from helm_sentry import state
from helm_sentry.control.client import LocalRuns, Runs
from helm_sentry.errors import FeatureError, UsageError

_OPTIONS = (
    click.option("--to", default="", metavar="unix:PATH|HOST:PORT", help="Ask a daemon over gRPC."),
    click.option("--tls-authority", default="", metavar="FILE", help="Who signed the daemon's certificate (PEM)."),
    click.option("--tls-certificate", default="", metavar="FILE", help="Your certificate."),
    click.option("--tls-key", default="", metavar="FILE", help="Its private key."),
)


def to(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options, and the runs they choose as its first argument."""

    @functools.wraps(command)
    def wrapped(*, to: str, tls_authority: str, tls_certificate: str, tls_key: str, **rest: Any) -> None:
        command(_chosen(to, tls_authority, tls_certificate, tls_key), **rest)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _chosen(address: str, *files: str) -> Runs:
    if not address:
        if any(files):
            raise UsageError("certificates are for `--to HOST:PORT`")
        return LocalRuns(state.control_directory())
    try:
        # Imported here: nothing but a daemon needs gRPC.
        from helm_sentry.rpc.remote import RemoteRuns, channel
    except ImportError as error:
        raise FeatureError(f"`--to` needs {error.name}; install `helm-sentry[daemon]`") from error
    return RemoteRuns(channel(address, *files))
