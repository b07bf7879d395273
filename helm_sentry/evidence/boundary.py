"""HELM AI Kernel's boundary records, their checkpoints, sandbox grants and proof graph nodes. Pure.

Each carries a hash of itself. None of them is signed in HELM; ours travel in packs and statements that are.
"""

from collections.abc import Sequence

from helm_sentry.audit.canonical import Fields, Json, dumps
from helm_sentry.evidence.serial import bare_digest, digest, pruned
from helm_sentry.receipt.keys import PublicKey, SigningKey

_NODE = ("kind", "parents", "lamport", "principal", "principal_seq", "payload", "sig")
_GRANT_ALWAYS = ("env", "network", "limits")


def record(fields: Fields) -> Fields:
    """Return an ExecutionBoundaryRecord with its `record_hash`; empty members are left out.

    Raises:
        ValueError: a member that its contract needs is missing.
    """
    for name in ("record_id", "verdict", "policy_epoch", "created_at"):
        if not fields.get(name):
            raise ValueError(f"a boundary record needs `{name}`")
    if fields["verdict"] != "ALLOW" and not fields.get("reason_code"):
        raise ValueError("a boundary record that does not allow needs a reason code")
    return _hashed(fields, "record_hash")


def checkpoint(records: Sequence[Fields], sequence: int, created_at: str, previous: str = "") -> Fields:
    """Return a BoundaryCheckpoint over records that carry their hashes.

    Args:
        records: all of them, in any order.
        sequence: number of the checkpoint, from 1.
        created_at: RFC 3339 time.
        previous: `checkpoint_hash` of the one before.
    """
    ordered = sorted(records, key=lambda record: (str(record["created_at"]), str(record["record_id"])))
    hashes: list[Json] = [record["record_hash"] for record in ordered]
    fields: Fields = {
        "checkpoint_id": f"boundary-checkpoint-{sequence:06d}",
        "sequence": sequence,
        "record_count": len(hashes),
        "receipt_count": len(hashes),
        "record_root_hash": digest(hashes),
        "receipt_root_hash": digest({"receipt_count": len(hashes), "record_hashes": hashes}),
        "previous_hash": previous,
        "record_hashes": hashes,
        "created_at": created_at,
    }
    return _hashed(fields, "checkpoint_hash", ("sequence", "record_count", "receipt_count"))


def grant(fields: Fields) -> Fields:
    """Return a SandboxGrant with its `grant_hash`."""
    return _hashed({name: {} for name in _GRANT_ALWAYS} | fields, "grant_hash", _GRANT_ALWAYS)


def intact(fields: Fields, name: str) -> bool:
    """Whether a record, checkpoint or grant has the hash of its contents in member `name`."""
    always = _GRANT_ALWAYS if name == "grant_hash" else ()
    return _hashed(fields, name, always)[name] == fields.get(name)


def node(
    kind: str,
    parents: Sequence[str],
    lamport: int,
    principal: str,
    principal_seq: int,
    payload: Fields,
    key: SigningKey | None = None,
) -> Fields:
    """Return a ProofGraph node with its `node_hash`, signed by its author when there is a key.

    The signature is over the node's canonical bytes with `sig` empty.
    """
    fields: Fields = {
        "kind": kind,
        "parents": list(parents) or None,  # a node without parents says null, not an empty list
        "lamport": lamport,
        "principal": principal,
        "principal_seq": principal_seq,
        "payload": payload,
        "sig": "",
    }
    if key:
        fields["sig_purpose"] = "author"
        fields["sig"] = key.sign(dumps(fields)).hex()
    return {"node_hash": node_hash(fields)} | fields


def node_hash(fields: Fields) -> str:
    """Return the hash of a node; its time is not part of it."""
    purpose: Fields = {"sig_purpose": fields["sig_purpose"]} if fields.get("sig_purpose") else {}
    return bare_digest({name: fields[name] for name in _NODE} | purpose)


def authored(fields: Fields, key: PublicKey) -> bool:
    """Whether `key` signed a node as its author."""
    body: Fields = {name: fields[name] for name in _NODE} | {"sig": "", "sig_purpose": "author"}
    return fields.get("sig_purpose") == "author" and key.verify_signature(
        dumps(body), bytes.fromhex(str(fields["sig"]))
    )


def _hashed(fields: Fields, name: str, always: Sequence[str] = ()) -> Fields:
    body = pruned({member: value for member, value in fields.items() if member != name}, always)
    return body | {name: digest(body)}
