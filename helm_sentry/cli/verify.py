"""`helm-sentry verify`: is this run what was signed, and by whom?"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator

import click

from helm_sentry.audit.segments import stored_names
from helm_sentry.cli.trust import public_key_option, trusted_keys
from helm_sentry.errors import VerificationError, printable
from helm_sentry.receipt.check import check_run, failure, sentence
from helm_sentry.state import run_directory

_SHORT = 16 << 20  # bytes of log that are verified before anybody wonders


@click.command()
@click.argument("run", metavar="RUN")
@public_key_option
@click.option("--allow-unsealed", is_flag=True, help="Accept a run that ended without its receipt.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(run: str, public_keys: tuple[str, ...], allow_unsealed: bool, as_json: bool) -> None:
    """Verify the log and the receipts of a run, offline.

    RUN is a run directory, the id of a run on this machine, or `latest`. Whether anything was changed and who signed
    are two answers: without --public-key the run is checked against the key that lies in it, and that key counts as
    trusted if it is this machine's own or was added with `helm-sentry keys trust`.
    """
    try:
        directory = run_directory(run)
        with _progress(directory) as advance:
            keys = trusted_keys(public_keys)
            report = check_run(
                directory, keys, pinned=bool(public_keys), allow_unsealed=allow_unsealed, advance=advance
            )
    except VerificationError as error:
        if as_json:
            click.echo(json.dumps(failure(error), indent=2))
        raise
    click.echo(json.dumps(report.fields(), indent=2) if as_json else printable(sentence(report)))
    if report.others and not as_json:
        click.echo(printable(f"note: nothing vouches for {', '.join(report.others)}"), err=True)


@contextlib.contextmanager
def _progress(directory: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's standard error while a long log is read, and nothing elsewhere."""
    paths = [os.path.join(directory, name) for name in stored_names(directory)]
    size = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
    if size < _SHORT or not sys.stderr.isatty():
        yield lambda count: None
        return
    with click.progressbar(length=size, label="verifying", file=sys.stderr) as bar:
        yield bar.update
