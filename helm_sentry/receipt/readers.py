"""The files of a run that have a line for each of something, read in step with the log. Pure.

In a sealed run each must be complete. A run that was killed has them as far as the signer came, the last piece
perhaps torn; what a power failure lost is a piece with zeros in it (`diagnosis.lost`).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from helm_sentry.audit.canonical import Fields, dumps, loads
from helm_sentry.audit.checkpoint import DASH, MOST_LINES, Checkpoint
from helm_sentry.audit.merkle import BlockTree, leaf_hash
from helm_sentry.audit.record import FIRST_PREV, Totals, mediated, read
from helm_sentry.decision import Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.diagnosis import explain, lost
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope, Signature
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.receipt import block_line, decision_statement, segment_statement
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, SEGMENTS, TREE, Segment


class Place(NamedTuple):
    """A line of the log. Becomes text only when something is wrong there."""

    file: str
    line: int
    byte: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line} (byte {self.byte}, record {self.sequence})"


class Log:
    """The records of a log in order, each checked; keeps what is known of the log so far."""

    def __init__(self, segments: Iterable[Segment], sealed: bool) -> None:
        self._segments, self._sealed = segments, sealed
        self.start: Fields = {}
        self.last: Fields = {}
        self.counts = {str(verdict): 0 for verdict in Verdict}
        self.records, self.head, self.size, self.torn = 0, FIRST_PREV, 0, 0
        self.tree = BlockTree()
        self.block: tuple[int, bytes] | None = None
        """Offset and root of the block that the last record completed."""
        self._block_offset, self._name = 0, ""
        self.witness: tuple[int, int] | None = None
        """What the last record of the witness counted."""

    def __iter__(self) -> Iterator[tuple[Place, Fields]]:
        for segment in self._segments:
            self._name = segment.name
            place = Place(segment.name, 1, 0, self.records)
            lines = iter(segment.lines)
            for line in lines:
                if self.torn or self._tears(line, place):
                    self.torn += len(line)
                    continue
                record = self._record(line, place, lines)
                yield place, record
                place = Place(place.file, place.line + 1, place.byte + len(line), self.records)
            if self._sealed and place.line == 1 and self.records:
                raise VerificationError(f"{segment.name}: an empty file at the end of a sealed log", self.records)

    def finish(self) -> None:
        """Require that a sealed log has its end."""
        if self._sealed and self.last.get("type") != "end":
            raise VerificationError(
                f"{self._name}: cut off before record {self.records}: it has no end record", self.records
            )

    @property
    def totals(self) -> Totals:
        """What the log amounts to so far."""
        return Totals(records=self.records, counts=self.counts, head=self.head, size=self.size)

    def _record(self, line: bytes, place: Place, following: Iterator[bytes]) -> Fields:
        try:
            record = read(line[:-1], self.records, self.head)
        except ValueError as error:
            found = explain(line[:-1], self.records, self.head, following) or error
            raise VerificationError(f"{place}: {found}", self.records) from error
        try:
            self._check_order(record)
        except ValueError as error:
            raise VerificationError(f"{place}: {error}", self.records) from error
        self._add(line, record)
        return record

    def _check_order(self, record: Fields) -> None:
        if (record["type"] == "start") == bool(self.start):
            raise ValueError("a log begins with its start record, and has one")
        if self.last.get("type") == "end":
            raise ValueError("a record after the end record")
        self.witness = (mediated(record) if record["type"] == "witness" else None) or self.witness
        if record["type"] == "end" and record.get("counts") != self.counts:
            raise ValueError("the end record's counts are not those of the log")

    def _add(self, line: bytes, record: Fields) -> None:
        self.start, self.last = self.start or record, record
        self.records, self.head, self.size = self.records + 1, str(record["hash"]), self.size + len(line)
        if record["type"] == "decision":
            self.counts[str(record["verdict"])] += 1
        self.block = None
        if (root := self.tree.append(leaf_hash(line[:-1]))) is not None:
            self.block, self._block_offset = (self._block_offset, root), self.size

    def _tears(self, line: bytes, place: Place) -> bool:
        """Return whether the log was torn here, as by a crash; what follows is part of no record."""
        if line.endswith(b"\n") and not lost(line, place.byte):
            return False
        if self._sealed:
            raise VerificationError(f"{place}: the line is cut short, but the run was sealed", self.records)
        return True


class _Pieces:
    """A file of pieces, each a line or several; the next one when asked, empty when there is none to be had.

    Args:
        last: how the last line of a piece begins.
        most: lines of a piece at most.
    """

    def __init__(self, name: str, lines: Iterable[bytes], sealed: bool, last: bytes = b"", most: int = 1) -> None:
        self._name, self._lines, self._sealed, self._last, self._most = name, iter(lines), sealed, last, most
        self.count, self._offset, self._line = 0, 0, 1

    def __str__(self) -> str:
        return f"{self._name} line {self._line} (byte {self._offset})"

    def peek(self) -> bytes:
        piece = b""
        for _ in range(self._most):
            line = next(self._lines, b"")
            piece += line
            if not line.endswith(b"\n") or lost(line, self._offset + len(piece) - len(line)):
                break
            if line.startswith(self._last):
                return piece
        else:
            return piece
        if self._sealed:
            return piece
        self._lines = iter(())  # torn, or lost: the signer came no further
        return b""

    def advance(self, piece: bytes) -> None:
        self.count, self._offset = self.count + 1, self._offset + len(piece)
        self._line += piece.count(b"\n")

    def leftover(self, what: str) -> None:
        """Require that nothing is left."""
        if self.peek():
            raise VerificationError(f"{self}: {what}")


class Denials:
    """The denial receipts of a run, which stand in the order of the records they are for."""

    def __init__(self, lines: Iterable[bytes], signer: PublicKey, sealed: bool) -> None:
        self._pieces, self._signer, self._sealed = _Pieces(DENIALS, lines, sealed), signer, sealed
        self.missing, self.signed = 0, 0

    @property
    def count(self) -> int:
        """Number of receipts so far."""
        return self._pieces.count

    def match(self, place: Place, start: Fields, record: Fields) -> None:
        """Require that the next receipt is the one for this record."""
        line = self._pieces.peek()
        if not line:
            if not self._sealed:  # the signer is behind the log
                self.missing += 1
                return
            what = record.get("verdict", "gap")
            raise VerificationError(f"{place}: {what} without a receipt in {DENIALS}", place.sequence)
        payload = open_envelope(str(self._pieces), line, self._signer, place.sequence)
        if payload != dumps(decision_statement(start, record)):
            raise VerificationError(f"{self._pieces}: {_mismatch(payload, start, record)}", place.sequence)
        self._pieces.advance(line)
        self.signed = place.sequence + 1

    def finish(self) -> None:
        """Require that no receipt is left over."""
        self._pieces.leftover("a receipt for something that the log does not have")


class Checkpoints:
    """The checkpoints of a run, in the order of their sizes."""

    def __init__(self, lines: Iterable[bytes], signer: PublicKey, sealed: bool) -> None:
        self._pieces, self._signer, self._sealed = (
            _Pieces(CHECKPOINTS, lines, sealed, DASH.encode(), MOST_LINES),
            signer,
            sealed,
        )
        self.signed = 0
        self._next: Checkpoint | None = None
        self._note = b""

    @property
    def count(self) -> int:
        """Number of checkpoints so far."""
        return self._pieces.count

    def match(self, log: Log) -> None:
        """Require that a checkpoint of just this size, if there is one, speaks for this log."""
        if self._next is None and not self._note:
            self._advance(log)
        if self._next is None or self._next.size != log.records:
            return
        if self._next.run != log.start.get("run"):
            raise VerificationError(
                f"{self._pieces}: a checkpoint of run `{self._next.run}`, not of run `{log.start.get('run')}`"
            )
        if self._next.root != log.tree.root():
            raise VerificationError(
                f"{self._pieces}: the log was changed and chained anew: one of the records {self.signed} to "
                f"{log.records - 1} is not the one that was signed",
                self.signed,
            )
        if self._next.witness != log.witness:
            raise VerificationError(
                f"{self._pieces}: it states {self._next.witness}, and the log {log.witness}, as counts"
            )
        self.signed = log.records
        self._pieces.advance(self._note)
        self._advance(log)

    def finish(self, log: Log) -> None:
        """Require that no checkpoint is left over, and that a sealed log has one at its end."""
        if self._next is not None:
            raise VerificationError(
                f"{self._pieces}: a checkpoint of {self._next.size} records, but the log has {log.records}: it was "
                "cut off",
                log.records,
            )
        if self._sealed and self.signed != log.records:
            raise VerificationError(f"{self._pieces}: the checkpoint of the whole log is missing")

    def _advance(self, log: Log) -> None:
        self._next, self._note = None, self._pieces.peek()
        if not self._note:
            self._note = b"\n"  # no more to be had
            return
        try:
            found = Checkpoint.open(self._note, self._signer.data, self._signer.verify_signature)
            if found.size <= self.signed:
                raise ValueError(f"a checkpoint of {found.size} records after one of {self.signed}")
        except ValueError as error:
            raise VerificationError(f"{self._pieces}: {error}") from error
        self._next = found


class Blocks:
    """The roots of the log's complete blocks."""

    def __init__(self, lines: Iterable[bytes], sealed: bool) -> None:
        self._pieces, self._sealed = _Pieces(TREE, lines, sealed), sealed

    def match(self, log: Log) -> None:
        """Require that the next line speaks for the block that was completed, if one was."""
        if log.block is None:
            return
        line = self._pieces.peek()
        if not line and not self._sealed:
            return
        if line != block_line(*log.block):
            raise VerificationError(f"{self._pieces}: not the root of the {self._pieces.count + 1}. block of records")
        self._pieces.advance(line)

    def finish(self) -> None:
        """Require that nothing is left over."""
        self._pieces.leftover("a block that the log does not have")


def check_archive(
    segments: Iterable[Segment], lines: Iterable[bytes], signer: PublicKey, log: Log, sealed: bool
) -> None:
    """Require a signed statement for each compressed file, and the other way round."""
    pieces = _Pieces(SEGMENTS, lines, sealed)
    for number, segment in enumerate(segments):
        line = pieces.peek()
        if not segment.stored:
            # A crash may come between the statement and the file's name.
            if line and sealed:
                raise VerificationError(f"{pieces}: a statement about {segment.name}, which is not compressed")
            continue
        if segment.stored and not segment.compressed and sealed:
            raise VerificationError(f"{segment.name}: there are two copies of it, one of them compressed")
        payload = open_envelope(str(pieces), line, signer)
        if payload != dumps(segment_statement(str(log.start.get("run")), number, segment.stored)):
            raise VerificationError(f"{pieces}: not the statement about the compressed file {segment.name}")
        pieces.advance(line)
    if sealed:
        pieces.leftover("a statement about a segment that the log does not have")


def open_envelope(place: str, line: bytes, signer: PublicKey, sequence: int | None = None) -> bytes:
    """Return the payload of an envelope in its one canonical form, with one signature, by this signer."""
    try:
        envelope = Envelope.parse(line)
        payload = envelope.open({signer.id: signer})
    except VerificationError as error:
        raise VerificationError(f"{place}: {error}", sequence) from error
    # Key id and spelling are not signed. With one way to write the envelope, they cannot be changed either.
    only = Envelope(payload, PAYLOAD_TYPE, (Signature(signer.id, envelope.signatures[0].data),))
    if only.encode() + b"\n" != line:
        raise VerificationError(f"{place}: not the canonical form of an envelope with one signature", sequence)
    return payload


def statement_of(payload: bytes) -> Fields:
    """Return the statement in a payload whose signature holds; what is none is reported as a difference."""
    try:
        statement = loads(payload)
    except ValueError:
        return {}
    return statement if isinstance(statement, dict) else {}


def _mismatch(payload: bytes, start: Fields, record: Fields) -> str:
    statement = statement_of(payload)
    if statement.get("run") != start.get("run"):
        return f"not a receipt of run `{start.get('run')}`"
    if statement.get("seq") != record["seq"]:
        return f"the receipt of record {statement.get('seq')}, where that of record {record['seq']} is due"
    return f"the receipt does not repeat record {record['seq']} of the log"
