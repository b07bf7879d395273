"""What verification reads and what it says: the files of a run directory, and the report. Pure.

    run.json                what the run is: its facts, fixed before the agent started
    policy.json             the policy that decided
    plan.json               which layer held which rule
    public.key              the key that signs, as a convenience; never a reason to trust it
    audit.jsonl             the log; goes on in audit.000001.jsonl …, and closed segments are compressed (.gz)
    tree.jsonl              offset and root of each complete block of 256 records, for quick proofs
    checkpoints             signed roots of the tree over the log so far
    receipts/denials.jsonl  one envelope for each DENY and ESCALATE, in log order
    receipts/segments.jsonl one envelope for each compressed segment, where there is one
    receipts/run.json       the run receipt, written last: the seal

Every file is canonical JSON, one value a line, each line with its newline; for public.key see `keys.py`.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from helm_sentry.audit.canonical import Fields
from helm_sentry.errors import VerificationError

LOG, TREE, CHECKPOINTS, PUBLIC = "audit.jsonl", "tree.jsonl", "checkpoints", "public.key"
DENIALS, SEGMENTS, SEAL = "receipts/denials.jsonl", "receipts/segments.jsonl", "receipts/run.json"
DIGESTED = {"run_digest": "run.json", "policy_digest": "policy.json", "plan_digest": "plan.json"}
"""Members of the start record that hold the SHA-256 of a file's canonical JSON, without its newline."""


class State(StrEnum):
    """How a run that was not tampered with ended."""

    SEALED = "sealed"
    UNSEALED = "unsealed"
    """Without a run receipt, as when the supervisor was killed. A cut tail looks like one never written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of a log.

    Attributes:
        name: the file's name.
        lines: what it holds, decompressed.
        compressed: the lines come from a compressed file.
        stored: SHA-256, in hex, of the compressed file; empty when there is none. A crash while a segment is
            compressed leaves both.
    """

    name: str
    lines: Iterable[bytes]
    compressed: bool = False
    stored: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """The contents of a run directory. Lines carry their newline; the last one may lack it.

    Attributes:
        documents: run.json, policy.json and plan.json by file name.
        public_key: public.key.
        segments: the log.
        tree: lines of tree.jsonl.
        checkpoints: lines of checkpoints.
        denials: lines of receipts/denials.jsonl.
        archive: lines of receipts/segments.jsonl.
        seal: receipts/run.json, None when there is none.
        others: names of files that nothing here speaks for.
    """

    documents: dict[str, bytes]
    public_key: bytes
    segments: tuple[Segment, ...]
    tree: Iterable[bytes]
    checkpoints: Iterable[bytes]
    denials: Iterable[bytes]
    archive: Iterable[bytes]
    seal: bytes | None
    others: tuple[str, ...] = ()

    @property
    def log(self) -> Iterator[bytes]:
        """The lines of the log."""
        return itertools.chain.from_iterable(segment.lines for segment in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What verification found in a run that was not tampered with.

    Attributes:
        state: sealed or unsealed.
        run: the run's id.
        records: number of records in the log.
        counts: number of decisions by verdict.
        head: hash of the last record.
        root: root, in hex, of the tree over the records.
        receipts: number of denial receipts, each verified.
        unreceipted: denials at the end of an unsealed log that the signer did not get to.
        checkpoints: number of checkpoints, each verified.
        signed: number of records, from the first, that a signature vouches for; the rest is only chained.
        torn: bytes of an unfinished last line of an unsealed log; they are part of no record.
        enforcing: false for a dry run, whose verdicts were only written down.
        degraded: layers that were missing, by the start record.
        key: id of the key that signed.
        trusted: the key is one that the caller pinned.
        others: names of files in the directory that nothing vouches for.
    """

    state: State
    run: str
    records: int
    counts: dict[str, int]
    head: str
    root: str
    receipts: int
    unreceipted: int
    checkpoints: int
    signed: int
    torn: int
    enforcing: bool
    degraded: tuple[str, ...]
    key: str
    trusted: bool
    others: tuple[str, ...]

    def fields(self) -> Fields:
        """Return the report as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class UnsealedError(VerificationError):
    """The run ended without a seal, and the caller did not say that this is acceptable.

    Attributes:
        report: what was found nevertheless.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        where = f"after record {report.records - 1}" if report.records else "before its first record"
        torn = f", within a line of which {report.torn} bytes were written" if report.torn else ""
        super().__init__(
            f"the run ended without a seal {where}{torn}: {report.signed} of {report.records} records are "
            "signed, and a tail may be missing; pass --allow-unsealed to accept that",
            report.records - 1 if report.records else None,
        )
