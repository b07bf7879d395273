"""`helm-sentry receipt`: a receipt for one record, and what a receipt says."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from helm_sentry.audit.canonical import Fields, Json, dumps, loads
from helm_sentry.cli.trust import public_key_option, trusted_keys
from helm_sentry.errors import UsageError, VerificationError, printable
from helm_sentry.evidence.statement import CONFORMANCE, DRIFT, EVIDENCE_ROOT, IN_TOTO
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope, seal
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.proof import check_consistency, verify_record
from helm_sentry.receipt.report import SEAL
from helm_sentry.receipt.store import read_document
from helm_sentry.receipt.stored_tree import StoredTree
from helm_sentry.state import LATEST, run_directory

if TYPE_CHECKING:
    from collections.abc import Collection


_STATEMENTS: dict[str, Callable[[Fields], str]] = {
    IN_TOTO: lambda claim: f"in-toto statement about {len(_list(claim.get('subject')))} files",
    EVIDENCE_ROOT: lambda root: f"evidence root {root.get('root')} of run {root.get('subject')}",
    DRIFT: lambda drift: f"boundary drift: {drift.get('status')} {drift.get('target')}",
    CONFORMANCE: lambda met: f"conformance: {met.get('vector')} {met.get('verdict')} {met.get('reason_code')}",
}
"""What else is signed in an envelope, and how it is said."""


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
        _members(seal_)  # whatever else is there is not for a terminal
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
    for text in _each(data):
        found = open_receipt(text, keys, pinned=bool(public_keys))
        click.echo(json.dumps(found, indent=2) if as_json else printable(_sentence(found)))


def open_receipt(data: bytes, keys: "Collection[PublicKey]", *, pinned: bool) -> Fields:
    """Return what a receipt says after verifying it.

    Args:
        data: the receipt.
        keys: keys that are trusted.
        pinned: one of them must have signed; otherwise a key that the receipt carries will do, without trust.

    Raises:
        VerificationError: it is not what was signed.
    """
    members = _members(data)
    signers = {key.id: key for key in keys}
    if "payloadType" in members:
        if not signers:
            raise UsageError("an envelope does not carry its key: pass --public-key")
        envelope = Envelope.parse(data)
        kind = envelope.payload_type in _STATEMENTS
        members = _members(envelope.open(signers, envelope.payload_type if kind else PAYLOAD_TYPE))
        if kind or members.get("kind") in ("run", "decision", "segment"):
            return {"integrity": "ok", "trusted": True, "type": envelope.payload_type, "statement": members}
    candidates = _candidates(members, signers, pinned)
    for key in candidates:
        try:
            what = _proved(members, key)
            break
        except VerificationError:
            if key is candidates[-1]:
                raise
    return {"integrity": "ok", "trusted": key.id in signers, "key": key.id, **what}


def _proved(members: Fields, key: PublicKey) -> Fields:
    if members.get("kind") == "consistency":
        old, new = check_consistency(members, key)
        return {"run": new.run, "old": old.size, "new": new.size}
    found = verify_record(members, key)
    return {"run": found.run, "seq": members["seq"], "records": found.size, "record": members["record"]}


def _candidates(members: Fields, signers: dict[str, PublicKey], pinned: bool) -> list[PublicKey]:
    """Return the keys that may have signed a proof: the one it carries, or else those that are trusted."""
    text = members.get("public_key")
    if not isinstance(text, str):
        if not signers:
            raise UsageError("the proof does not carry its key: pass --public-key")
        return list(signers.values())
    key = PublicKey.parse(text.encode() + b"\n")
    if pinned and key.id not in signers:
        pins = " or ".join(f"`{name}`" for name in signers)
        raise VerificationError(f"signed by key `{key.id}`, not by {pins}")
    return [signers.get(key.id, key)]


def _each(data: bytes) -> list[bytes]:
    """Return the receipts in a file: its lines, if each is an object by itself, or else the whole."""
    lines = [line for line in data.splitlines() if line.strip()]
    whole = all(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in lines)
    return lines if lines and whole else [data]


def _members(data: bytes) -> Fields:
    try:
        members = loads(data)
    except ValueError as error:
        raise VerificationError(f"not a receipt: {error}") from error
    if not isinstance(members, dict):
        raise VerificationError("not a receipt")
    return members


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _sentence(found: Fields) -> str:
    trust = "trusted" if found["trusted"] else "not pinned: pass --public-key to pin"
    statement = found.get("statement")
    if isinstance(statement, dict):
        if kind := _STATEMENTS.get(str(found["type"])):
            return f"ok: {kind(statement)}; signer {trust}"
        what = "" if statement.get("kind") == "run" else f"a {statement.get('kind')} of "
        return f"ok: receipt of {what}run {statement.get('run')}; signer {trust}"
    signer = f"signed by key {found['key']} ({trust})"
    if "seq" in found:
        return f"ok: record {found['seq']} is in the log of run {found['run']} ({found['records']} records); {signer}"
    return f"ok: the log of run {found['run']} grew from {found['old']} to {found['new']} records; {signer}"
