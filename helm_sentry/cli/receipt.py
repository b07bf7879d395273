"""`helm-sentry receipt`: a receipt for one record, and what a receipt says."""

import json

import click

from helm_sentry.audit.canonical import dumps
from helm_sentry.cli.trust import public_key_option, trusted_keys
from helm_sentry.errors import printable
from helm_sentry.receipt.alone import members_of, open_receipt, receipts_in, sentence
from helm_sentry.receipt.envelope import seal
from helm_sentry.receipt.report import SEAL
from helm_sentry.receipt.store import read_document
from helm_sentry.receipt.stored_tree import StoredTree
from helm_sentry.state import LATEST, run_directory


@click.group()
def receipt() -> None:
    """Show and verify receipts."""


@receipt.command()
@click.argument("run", metavar="[RUN]", default=LATEST)
@click.argument("sequence", metavar="[SEQ]", type=int, required=False)
@click.option("--sign", is_flag=True, help="Put it in an envelope signed by this machine's key.")
def show(run: str, sequence: int | None, sign: bool) -> None:
    """Print the receipt of record SEQ of a run, or of the run.

    RUN is its id, its directory, or `latest`, which is meant where none is named: `receipt show 42`. A record's receipt
    holds the record, its proof of inclusion and the signed checkpoint: it can be verified alone, with `helm-sentry
    receipt verify` and the public key.
    """
    if sequence is None and run.isdecimal():  # no run is called like this
        run, sequence = LATEST, int(run)
    directory = run_directory(run)
    if sequence is None:
        seal_ = read_document(directory, SEAL)
        members_of(seal_)  # whatever else is there is not for a terminal
        click.echo(seal_.decode(), nl=False)
        return
    statement = dumps(StoredTree(directory).receipt(sequence))
    if sign:
        from helm_sentry.receipt.keyring import own_key  # what signs is not loaded to verify

        statement = seal(statement, own_key())
    click.echo(statement.decode())


@receipt.command()
@click.argument("run", metavar="[RUN]", default=LATEST)
@click.option("--old", type=int, default=0, help="Records in the earlier checkpoint; the first one if not given.")
@click.option("--new", type=int, default=0, help="Records in the later checkpoint; the last one if not given.")
def consistency(run: str, old: int, new: int) -> None:
    """Prove that a later checkpoint continues an earlier one."""
    click.echo(dumps(StoredTree(run_directory(run)).consistency(old, new)).decode())


@receipt.command()
@click.argument("file", type=click.File("rb"))
@public_key_option
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(file: click.File, public_keys: tuple[str, ...], as_json: bool) -> None:
    """Verify a receipt by itself.

    FILE holds a receipt, or one a line: of a record, a denial or a run, a proof of consistency, or a signed statement
    of `evidence export`, `evidence correlate` or `conform`; - is standard input. Exit status 121 if one does not hold.
    What does not carry its key needs --public-key or a key that is trusted here.
    """
    data: bytes = file.read()  # type: ignore[attr-defined]
    keys = trusted_keys(public_keys)
    for text in receipts_in(data):
        found = open_receipt(text, keys, pinned=bool(public_keys))
        click.echo(json.dumps(found, indent=2) if as_json else printable(sentence(found)))
