"""Receipts by themselves: what they say, and whether it was signed. Pure.

A receipt of a record, a proof of consistency, and everything that we put in an envelope.
"""

from collections.abc import Callable, Collection

from helm_sentry.audit.canonical import Fields, Json, loads
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.evidence.statement import CONFORMANCE, DRIFT, EVIDENCE_ROOT, IN_TOTO
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.proof import check_consistency, verify_record

_STATEMENTS: dict[str, Callable[[Fields], str]] = {
    IN_TOTO: lambda claim: f"in-toto statement about {len(_list(claim.get('subject')))} files",
    EVIDENCE_ROOT: lambda root: f"evidence root {root.get('root')} of run {root.get('subject')}",
    DRIFT: lambda drift: f"boundary drift: {drift.get('status')} {drift.get('target')}",
    CONFORMANCE: lambda met: f"conformance: {met.get('vector')} {met.get('verdict')} {met.get('reason_code')}",
}
"""What else is signed in an envelope, and how it is said."""


def open_receipt(data: bytes, keys: Collection[PublicKey], *, pinned: bool) -> Fields:
    """Return what a receipt says after verifying it.

    Args:
        data: the receipt.
        keys: keys that are trusted.
        pinned: one of them must have signed; otherwise a key that the receipt carries will do, without trust.

    Raises:
        VerificationError: it is not what was signed.
    """
    members = members_of(data)
    signers = {key.id: key for key in keys}
    if "payloadType" in members:
        if not signers:
            raise UsageError("an envelope does not carry its key: pass --public-key")
        envelope = Envelope.parse(data)
        kind = envelope.payload_type in _STATEMENTS
        members = members_of(envelope.open(signers, envelope.payload_type if kind else PAYLOAD_TYPE))
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


def receipts_in(data: bytes) -> list[bytes]:
    """Return the receipts in a file: its lines, if each is an object by itself, or else the whole."""
    lines = [line for line in data.splitlines() if line.strip()]
    whole = all(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in lines)
    return lines if lines and whole else [data]


def members_of(data: bytes) -> Fields:
    """Return the members of an object that may be a receipt.

    Raises:
        VerificationError: it is none.
    """
    try:
        members = loads(data)
    except ValueError as error:
        raise VerificationError(f"not a receipt: {error}") from error
    if not isinstance(members, dict):
        raise VerificationError("not a receipt")
    return members


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def sentence(found: Fields) -> str:
    """Return what was found in a receipt, in one line."""
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
