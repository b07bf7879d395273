"""`helm-sentry daemon`."""

import signal

import click

from helm_sentry.errors import FeatureError, UsageError


@click.command()
@click.option("--journal", is_flag=True, help="Send what was not allowed to systemd-journald.")
@click.option("--callers", metavar="FILE", help="Who may do what over gRPC, to agents of which role.")
@click.option("--tls", metavar="HOST:PORT", help="Serve gRPC there too, to callers with a certificate.")
@click.option("--tls-certificate", metavar="FILE", help="The server's certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="Its private key.")
@click.option("--tls-callers", metavar="FILE", help="The authority that signs the callers' certificates.")
def daemon(
    journal: bool,
    callers: str | None,
    tls: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
    tls_callers: str | None,
) -> None:
    """Host runs, and serve gRPC, metrics and the journal.

    `helm-sentry run` hands its work to the daemon of its state directory. SIGTERM ends the runs it hosts, and then
    the daemon. SIGHUP has the list of callers read again.
    """
    # Blocked before there is a thread, so that no thread takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        # Imported here: only the daemon needs gRPC.
        from helm_sentry.daemon.daemon import Daemon, Settings
        from helm_sentry.rpc.callers import EVERYBODY, load_callers
        from helm_sentry.rpc.server import Tls
    except ImportError as error:
        raise FeatureError(f"the daemon needs {error.name}; install `helm-sentry[daemon]`") from error
    files = (tls_certificate, tls_key, tls_callers)
    if bool(tls) != any(files) or (tls and not all(files)):
        raise UsageError("`--tls` needs `--tls-certificate`, `--tls-key` and `--tls-callers`")
    address = Tls(tls, *map(str, files)) if tls else None
    Daemon(Settings(journal, address, lambda: load_callers(callers) if callers else EVERYBODY)).serve()
