"""Receipts: what a run's key signs. Pure builders, used by the signer and, to compare, by the verifier.

A statement holds nothing that cannot be derived from its log, so verifying one is building it again.
"""

import hashlib

from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.record import Totals
from helm_sentry.receipt.report import DIGESTED

SCHEMA = "helm-sentry/receipt/v1"


def digest(data: bytes) -> str:
    """Return the SHA-256 of canonical bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def run_statement(start: Fields, end: Fields, totals: Totals, root: bytes) -> Fields:
    """Return the statement about a whole run.

    Args:
        start: the first record of its log.
        end: the last record of its log.
        totals: count, head and size of the log.
        root: root of the tree over it.
    """
    return {
        "schema": SCHEMA,
        "kind": "run",
        "run": start.get("run"),
        "version": start.get("version"),
        **{name: start.get(name) for name in DIGESTED},
        "started": start.get("time"),
        "ended": end.get("time"),
        "exit": end.get("exit"),
        "signal": end.get("signal"),
        "degraded": start.get("degraded"),
        "records": totals.records,
        "counts": dict(totals.counts),
        "head": totals.head,
        "size": totals.size,
        "root": root.hex(),
        # A dry run, whose verdicts were only written down, must not be able to pass for an enforced one.
        "enforcing": start.get("enforcing"),
    }


def decision_statement(start: Fields, record: Fields) -> Fields:
    """Return the statement about one record of the run that began with `start`."""
    return {
        "schema": SCHEMA,
        "kind": "decision",
        "run": start.get("run"),
        "policy_digest": start.get("policy_digest"),
        # In a dry run a denial was written down and the act performed.
        "enforcing": start.get("enforcing"),
        "seq": record["seq"],
        "hash": record["hash"],
        "record": record,
    }


def segment_statement(run: str, number: int, stored: str) -> Fields:
    """Return the statement about a segment that was compressed.

    Args:
        run: the run's id.
        number: which segment.
        stored: SHA-256 of the compressed file, in hex. Compression has many spellings; this is the one.
    """
    return {"schema": SCHEMA, "kind": "segment", "run": run, "segment": number, "stored": stored}


def block_line(offset: int, root: bytes) -> bytes:
    """Return the line of tree.jsonl about a block: where in the log it begins, and its root."""
    return b'{"offset":%d,"root":"%b"}\n' % (offset, root.hex().encode())


def needs_receipt(record: Fields) -> bool:
    """Return whether a record gets a receipt of its own: everything not simply allowed, gaps, answers of people."""
    return record.get("verdict") in ("DENY", "ESCALATE") or record.get("type") in ("gap", "approval")
