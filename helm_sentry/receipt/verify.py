"""Verification of a finished run: bytes in, a report or an error out. Pure.

Needs no supervisor, no Linux and no network.

What holds when `verify_run` returns a report with state `sealed`:

1. The log is a chain from its start record to its end record; the run receipt signs its head and size.
2. run.json, policy.json and plan.json are the ones whose digests the start record holds.
3. Every DENY and ESCALATE has exactly one receipt, in log order, which repeats the log's record.
4. Every file is the only possible spelling of its contents, so a changed byte anywhere is found.
5. All signatures are by the key in public.key. Whose key that is, only the caller's pinned keys can say.

Integrity and trust are separate answers: without a pinned key the report says `trusted=False`.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from helm_sentry.audit.canonical import Fields, dumps, loads
from helm_sentry.audit.record import FIRST_PREV, Totals, read
from helm_sentry.decision import Verdict
from helm_sentry.errors import SentryError, VerificationError
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope, Signature
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.receipt import decision_statement, digest, needs_receipt, run_statement
from helm_sentry.receipt.report import (
    DENIALS,
    DIGESTED,
    LOG,
    PUBLIC,
    SEAL,
    Report,
    RunFiles,
    State,
    UnsealedError,
)


def verify_run(files: RunFiles, trusted_keys: Collection[PublicKey] = (), *, allow_unsealed: bool = False) -> Report:
    """Verify a run and return what was found.

    Args:
        files: the contents of its directory.
        trusted_keys: keys known from elsewhere, one of which must have signed; empty to check integrity only.
        allow_unsealed: accept a run without a run receipt.

    Raises:
        UnsealedError: the run has no run receipt, and is otherwise sound.
        VerificationError: something is not what was signed; names the first fault by file, line and record.
    """
    sealed = files.seal is not None
    signer = _signer(files.public_key, trusted_keys)
    log, denials = _Log(files.log, sealed), _Denials(files.denials, signer, sealed)
    for place, record in log:
        if place.sequence == 0:
            _check_start(files, record, signer)
        if needs_receipt(record):
            denials.match(place, log.start, record)
    log.finish()
    denials.finish()
    if files.seal is not None:
        _check_seal(files.seal, log, signer)
    report = _report(files, log, denials, signer, bool(trusted_keys))
    if not sealed and not allow_unsealed:
        raise UnsealedError(report)
    return report


class _Place(NamedTuple):
    # Becomes text only when something is wrong there.
    sequence: int
    byte: int

    def __str__(self) -> str:
        return f"{LOG} line {self.sequence + 1} (byte {self.byte}, record {self.sequence})"


class _Log:
    """The records of a log in order, each checked; keeps what is known of the log so far."""

    def __init__(self, lines: Iterable[bytes], sealed: bool) -> None:
        self._lines, self._sealed = lines, sealed
        self.start: Fields = {}
        self.last: Fields = {}
        self.counts = {str(verdict): 0 for verdict in Verdict}
        self.records, self.head, self.size, self.torn = 0, FIRST_PREV, 0, 0

    def __iter__(self) -> Iterator[tuple[_Place, Fields]]:
        for line in self._lines:
            place = _Place(self.records, self.size)
            if not line.endswith(b"\n"):
                self._tear(line, place)
                return
            try:
                record = read(line[:-1], self.records, self.head)
                self._check_order(record)
            except ValueError as error:
                raise VerificationError(f"{place}: {error}", self.records) from error
            self._add(record, len(line))
            yield place, record

    def finish(self) -> None:
        """Require that a sealed log has its end."""
        if self._sealed and self.last.get("type") != "end":
            raise VerificationError(f"{LOG}: cut off before record {self.records}: it has no end record", self.records)

    @property
    def totals(self) -> Totals:
        return Totals(records=self.records, counts=self.counts, head=self.head, size=self.size)

    def _check_order(self, record: Fields) -> None:
        if (record["type"] == "start") == bool(self.start):
            raise ValueError("a log begins with its start record, and has one")
        if self.last.get("type") == "end":
            raise ValueError("a record after the end record")
        if record["type"] == "end" and record.get("counts") != self.counts:
            raise ValueError("the end record's counts are not those of the log")

    def _add(self, record: Fields, size: int) -> None:
        self.start, self.last = self.start or record, record
        self.records, self.head, self.size = self.records + 1, str(record["hash"]), self.size + size
        if record["type"] == "decision":
            self.counts[str(record["verdict"])] += 1

    def _tear(self, line: bytes, place: _Place) -> None:
        if self._sealed:
            raise VerificationError(f"{place}: the line is cut short, but the run was sealed", self.records)
        self.torn = len(line)


class _Denials:
    """The denial receipts of a run, which stand in the order of the records they are for."""

    def __init__(self, lines: Iterable[bytes], signer: PublicKey, sealed: bool) -> None:
        self._lines, self._signer, self._sealed = iter(lines), signer, sealed
        self.count, self.missing, self.signed, self._size = 0, 0, 0, 0

    def match(self, place: _Place, start: Fields, record: Fields) -> None:
        """Require that the next receipt is the one for this record."""
        line = next(self._lines, b"")
        if not line.endswith(b"\n") and not self._sealed:
            # The signer is behind the log: a killed supervisor leaves receipts missing, one perhaps torn.
            self._lines, self.missing = iter(()), self.missing + 1
            return
        if not line:
            raise VerificationError(f"{place}: {record['verdict']} without a receipt in {DENIALS}", place.sequence)
        payload = _open(self._here(), line, self._signer, place.sequence)
        if payload != dumps(decision_statement(start, record)):
            raise VerificationError(f"{self._here()}: {_mismatch(payload, start, record)}", place.sequence)
        self.count, self.signed, self._size = self.count + 1, place.sequence + 1, self._size + len(line)

    def finish(self) -> None:
        """Require that no receipt is left over."""
        if next(self._lines, None) is not None:
            raise VerificationError(f"{self._here()}: a receipt for something that the log does not have")

    def _here(self) -> str:
        return f"{DENIALS} line {self.count + 1} (byte {self._size})"


def _signer(public_key: bytes, trusted_keys: Collection[PublicKey]) -> PublicKey:
    try:
        signer = PublicKey.parse(public_key)
    except SentryError as error:
        raise VerificationError(f"{PUBLIC}: {error}") from error
    if trusted_keys and signer not in trusted_keys:
        pinned = " or ".join(f"`{key.id}`" for key in trusted_keys)
        raise VerificationError(f"{PUBLIC}: the run was signed by key `{signer.id}`, not by {pinned}")
    return signer


def _check_start(files: RunFiles, start: Fields, signer: PublicKey) -> None:
    for member, name in DIGESTED.items():
        data = files.documents[name]
        if data[-1:] != b"\n" or digest(data[:-1]) != start.get(member):
            raise VerificationError(f"{name}: not the file whose digest the log's start record holds", 0)
    if start.get("key") != signer.id:
        raise VerificationError(f"{PUBLIC}: the start record names key `{start.get('key')}`, not this one", 0)


def _open(place: str, line: bytes, signer: PublicKey, sequence: int | None = None) -> bytes:
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


def _statement(payload: bytes) -> Fields:
    # The signature holds, so a payload that is no statement is the signer's doing, reported as a difference.
    try:
        statement = loads(payload)
    except ValueError:
        return {}
    return statement if isinstance(statement, dict) else {}


def _mismatch(payload: bytes, start: Fields, record: Fields) -> str:
    statement = _statement(payload)
    if statement.get("run") != start.get("run"):
        return f"not a receipt of run `{start.get('run')}`"
    if statement.get("seq") != record["seq"]:
        return f"the receipt of record {statement.get('seq')}, where that of record {record['seq']} is due"
    return f"the receipt does not repeat record {record['seq']} of the log"


def _check_seal(seal: bytes, log: _Log, signer: PublicKey) -> None:
    payload = _open(SEAL, seal, signer)
    expected = run_statement(log.start, log.last, log.totals)
    if payload == dumps(expected):
        return
    stated = _statement(payload)
    for name in ("run", *expected):
        if stated.get(name) != expected[name]:
            raise VerificationError(f"{SEAL}: `{name}` is `{stated.get(name)}`, but the log gives `{expected[name]}`")
    raise VerificationError(f"{SEAL}: not a run receipt of this version")


def _report(files: RunFiles, log: _Log, denials: _Denials, signer: PublicKey, pinned: bool) -> Report:
    sealed, degraded = files.seal is not None, log.start.get("degraded")
    signed = log.records if sealed else denials.signed
    return Report(
        state=State.SEALED if sealed else State.UNSEALED,
        run=str(log.start.get("run", "")),
        records=log.records,
        counts=log.counts,
        head=log.head,
        receipts=denials.count,
        unreceipted=denials.missing,
        signed=signed,
        torn=log.torn,
        enforcing=log.start.get("enforcing") is True,
        degraded=tuple(map(str, degraded)) if isinstance(degraded, list) else (),
        key=signer.id,
        trusted=pinned and signed > 0,
        others=files.others,
    )
