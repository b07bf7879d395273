"""Receipts for single records and proofs between checkpoints: the tree's answers, verifiable without the log. Pure.

A record's receipt carries the record, the start record of its run, the way of both to the root, and the checkpoint
that signs the root. What it claims can be checked with the public key alone.
"""

from helm_sentry.audit.canonical import Fields, Json, dumps
from helm_sentry.audit.checkpoint import Checkpoint
from helm_sentry.audit.merkle import (
    Subtree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.receipt import SCHEMA


def record_statement(subtree: Subtree, start: Fields, record: Fields, note: bytes, size: int, key: PublicKey) -> Fields:
    """Return the statement about one record.

    Args:
        subtree: roots over parts of the log.
        start: the first record of the log.
        record: the record.
        note: the signed checkpoint.
        size: number of records it covers.
        key: who signed it; as a convenience, and no reason to trust.

    Raises:
        ValueError: the checkpoint does not cover the record.
    """
    sequence = record["seq"]
    if not isinstance(sequence, int):
        raise ValueError("the record has no sequence number")
    return {
        "schema": SCHEMA,
        "kind": "record",
        "run": start.get("run"),
        "policy_digest": start.get("policy_digest"),
        "seq": sequence,
        "record": record,
        "proof": _texts(inclusion_proof(subtree, sequence, size)),
        "start": start,
        "start_proof": _texts(inclusion_proof(subtree, 0, size)),
        "checkpoint": note.decode(),
        "public_key": key.export().decode().rstrip("\n"),
    }


def verify_record(statement: Fields, key: PublicKey) -> Checkpoint:
    """Return the checkpoint that a record's statement leads to.

    Raises:
        VerificationError: it does not lead there, or this key did not sign it.
    """
    start, record, sequence = statement.get("start"), statement.get("record"), statement.get("seq")
    if not isinstance(start, dict) or not isinstance(record, dict) or not isinstance(sequence, int):
        raise VerificationError("not the receipt of a record")
    found = _checkpoint(statement.get("checkpoint"), key)
    for name, fields, index in (("start_proof", start, 0), ("proof", record, sequence)):
        leaf = leaf_hash(_canonical(fields))
        if not verify_inclusion(leaf, index, found.size, _hashes(statement.get(name)), found.root):
            raise VerificationError(f"the {name.replace('_', ' ')} does not lead to the signed root", sequence)
    if record.get("seq") != sequence or start.get("type") != "start" or start.get("key") != key.id:
        raise VerificationError("the receipt's members are not those of its records", sequence)
    for name in ("run", "policy_digest"):
        if statement.get(name) != start.get(name):
            raise VerificationError(f"`{name}` is not that of the start record", sequence)
    if found.run != start.get("run") or (statement.get("schema"), statement.get("kind")) != (SCHEMA, "record"):
        raise VerificationError("the checkpoint is of another run, or the receipt of another version", sequence)
    return found


def consistency_statement(subtree: Subtree, old: bytes, new: bytes, sizes: tuple[int, int]) -> Fields:
    """Return the statement that one checkpoint's log begins with another's.

    Args:
        subtree: roots over parts of the log.
        old: the signed checkpoint of the shorter log.
        new: the signed checkpoint of the longer one.
        sizes: number of records in each.

    Raises:
        ValueError: the second is shorter than the first.
    """
    proof = _texts(consistency_proof(subtree, *sizes))
    return {"schema": SCHEMA, "kind": "consistency", "old": old.decode(), "new": new.decode(), "proof": proof}


def check_consistency(statement: Fields, key: PublicKey) -> tuple[Checkpoint, Checkpoint]:
    """Return the two checkpoints of a statement whose proof holds.

    Raises:
        VerificationError: it does not hold, or this key did not sign them.
    """
    old, new = (_checkpoint(statement.get(name), key) for name in ("old", "new"))
    proof = _hashes(statement.get("proof"))
    if old.run != new.run or not verify_consistency(old.size, new.size, old.root, new.root, proof):
        raise VerificationError(f"the log of {new.size} records does not begin with the one of {old.size}")
    return old, new


def _checkpoint(note: Json, key: PublicKey) -> Checkpoint:
    try:
        return Checkpoint.open(str(note).encode(), key.data, key.verify_signature)
    except ValueError as error:
        raise VerificationError(str(error)) from error


def _canonical(fields: Fields) -> bytes:
    try:
        return dumps(fields)
    except ValueError as error:
        raise VerificationError(f"a record without canonical form: {error}") from error


def _texts(hashes: list[bytes]) -> list[Json]:
    return [node.hex() for node in hashes]


def _hashes(texts: Json) -> list[bytes]:
    try:
        return [bytes.fromhex(str(text)) for text in texts] if isinstance(texts, list) else []
    except ValueError as error:
        raise VerificationError("a proof is a list of hashes in hex") from error
