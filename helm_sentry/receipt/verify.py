"""Verification of a finished run: bytes in, a report or an error out. Pure.

Needs no supervisor, no Linux and no network.

What holds when `verify_run` returns a report with state `sealed`:

1. The log is a chain from its start record to its end record; the run receipt signs its head, its size and its root.
2. run.json, policy.json and plan.json are the ones whose digests the start record holds.
3. Every DENY and ESCALATE has exactly one receipt, in log order, which repeats the log's record.
4. Every checkpoint is the signed root of the tree over just so many records; the last one covers the whole log.
5. Every file is the only possible spelling of its contents, so a changed byte anywhere is found.
6. All signatures are by the key in public.key. Whose key that is, only the caller's pinned keys can say.

Integrity and trust are separate answers: without a pinned key the report says `trusted=False`.
"""

from collections.abc import Collection

from helm_sentry.audit.canonical import Fields, dumps
from helm_sentry.errors import SentryError, VerificationError
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.readers import (
    Blocks,
    Checkpoints,
    Denials,
    Log,
    check_archive,
    open_envelope,
    statement_of,
)
from helm_sentry.receipt.receipt import digest, needs_receipt, run_statement
from helm_sentry.receipt.report import DIGESTED, PUBLIC, SEAL, Report, RunFiles, State, UnsealedError


def verify_run(
    files: RunFiles,
    trusted_keys: Collection[PublicKey] = (),
    *,
    pinned: bool = True,
    allow_unsealed: bool = False,
) -> Report:
    """Verify a run and return what was found.

    Args:
        files: the contents of its directory.
        trusted_keys: keys known from elsewhere; empty to check integrity only.
        pinned: one of them must have signed; otherwise the report just says whether one has.
        allow_unsealed: accept a run without a run receipt.

    Raises:
        UnsealedError: the run has no run receipt, and is otherwise sound.
        VerificationError: something is not what was signed; names the first fault by file, line and record.
    """
    sealed = files.seal is not None
    signer = _signer(files.public_key, trusted_keys if pinned else ())
    log, denials = Log(files.segments, sealed), Denials(files.denials, signer, sealed)
    checkpoints, blocks = Checkpoints(files.checkpoints, signer, sealed), Blocks(files.tree, sealed)
    for place, record in log:
        if place.sequence == 0:
            _check_start(files, record, signer)
        if needs_receipt(record):
            denials.match(place, log.start, record)
        blocks.match(log)
        checkpoints.match(log)
    log.finish()
    denials.finish()
    checkpoints.finish(log)
    blocks.finish()
    check_archive(files.segments, files.archive, signer, log, sealed)
    if files.seal is not None:
        _check_seal(files.seal, log, signer)
    report = _report(files, log, denials, checkpoints, signer, signer in trusted_keys)
    if not sealed and not allow_unsealed:
        raise UnsealedError(report)
    return report


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
            raise VerificationError(
                f"{name}: not the file whose digest the log's start record holds{_other_run(data, start)}", 0
            )
    if start.get("key") != signer.id:
        raise VerificationError(f"{PUBLIC}: the start record names key `{start.get('key')}`, not this one", 0)


def _other_run(document: bytes, start: Fields) -> str:
    """Return a remark when a document is of another run than the log."""
    run = statement_of(document).get("run")
    if isinstance(run, str) and run != start.get("run"):
        return f": it is of run `{run}`, the log of run `{start.get('run')}`"
    return ", so it was changed or replaced"


def _check_seal(seal: bytes, log: Log, signer: PublicKey) -> None:
    payload = open_envelope(SEAL, seal, signer)
    expected = run_statement(log.start, log.last, log.totals, log.tree.root())
    if payload == dumps(expected):
        return
    stated = statement_of(payload)
    for name in ("run", *expected):
        if stated.get(name) != expected[name]:
            raise VerificationError(f"{SEAL}: `{name}` is `{stated.get(name)}`, but the log gives `{expected[name]}`")
    raise VerificationError(f"{SEAL}: not a run receipt of this version")


def _report(
    files: RunFiles, log: Log, denials: Denials, checkpoints: Checkpoints, signer: PublicKey, trusted: bool
) -> Report:
    sealed, degraded = files.seal is not None, log.start.get("degraded")
    signed = log.records if sealed else max(denials.signed, checkpoints.signed)
    return Report(
        state=State.SEALED if sealed else State.UNSEALED,
        run=str(log.start.get("run", "")),
        records=log.records,
        counts=log.counts,
        head=log.head,
        root=log.tree.root().hex(),
        receipts=denials.count,
        unreceipted=denials.missing,
        checkpoints=checkpoints.count,
        signed=signed,
        torn=log.torn,
        enforcing=log.start.get("enforcing") is True,
        degraded=tuple(map(str, degraded)) if isinstance(degraded, list) else (),
        key=signer.id,
        trusted=trusted and signed > 0,
        others=files.others,
    )
