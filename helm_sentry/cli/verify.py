"""`helm-sentry verify`: is this run what was signed, and by whom?"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator

import click

from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.segments import stored_names
from helm_sentry.cli.main import printable
from helm_sentry.cli.trust import public_key_option, trusted_keys
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.report import Report, State, UnsealedError
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run
from helm_sentry.state import is_run_id, run_directory

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
            files = read_run(directory, advance)
            keys = trusted_keys(public_keys)
            report = verify_run(files, keys, pinned=bool(public_keys), allow_unsealed=allow_unsealed)
        name = os.path.basename(os.path.abspath(directory))
        if is_run_id(name) and report.run != name:
            raise VerificationError(f"the directory of run `{name}` holds run `{report.run}`")
    except VerificationError as error:
        if as_json:
            click.echo(json.dumps(_failure(error), indent=2))
        raise
    click.echo(json.dumps(report.fields(), indent=2) if as_json else printable(_sentence(report)))
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


def _failure(error: VerificationError) -> Fields:
    if isinstance(error, UnsealedError):
        return error.report.fields() | {"error": str(error)}
    return {"state": "tampered", "error": str(error), "record": error.sequence}


def _sentence(report: Report) -> str:
    records, denials = _number(report.records, "record"), report.receipts + report.unreceipted
    signer = _signer(report) + ("" if report.enforcing else "; dry run: nothing was enforced")
    if report.degraded:
        signer += f"; degraded, the host had no {', '.join(report.degraded)}"
    if report.state is State.UNSEALED:
        return (
            f"ok, but unsealed: {records}, of which a signature vouches for the first {report.signed:,}; "
            f"{_number(denials, 'denial')}, {report.unreceipted:,} without a receipt; {_torn(report)}{signer}"
        )
    receipts = ", each with a receipt" if denials else ""
    return f"ok: {records}, {_number(denials, 'denial')}{receipts}; {signer}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _torn(report: Report) -> str:
    return f"the last line is torn after {report.torn:,} bytes; " if report.torn else ""


def _signer(report: Report) -> str:
    if not report.signed:
        return "signed by nobody"
    trust = "trusted" if report.trusted else "not pinned: pass --public-key to pin"
    return f"signed by key {report.key} ({trust})"
