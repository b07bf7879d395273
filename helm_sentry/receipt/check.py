"""What a person asks of a run directory: is it what was signed, and by whom? The answer, and how it is put in words."""

import os
from collections.abc import Callable, Collection

from helm_sentry.audit.canonical import Fields
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.report import Report, State, UnsealedError
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run
from helm_sentry.state import is_run_id


def check_run(
    directory: str,
    keys: Collection[PublicKey],
    *,
    pinned: bool,
    allow_unsealed: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Report:
    """Verify the run in a directory.

    Args:
        directory: the run directory; if its name is a run id, it must hold that run.
        keys: keys known from elsewhere.
        pinned: one of them must have signed; otherwise the report just says whether one has.
        allow_unsealed: accept a run without a run receipt.
        advance: called now and then with the number of bytes of the log's files that were read since.

    Raises:
        UnsealedError: the run has no run receipt, and is otherwise sound.
        VerificationError: something is not what was signed; names the first fault by file, line and record.
    """
    report = verify_run(read_run(directory, advance), keys, pinned=pinned, allow_unsealed=allow_unsealed)
    name = os.path.basename(os.path.abspath(directory))
    if is_run_id(name) and report.run != name:
        raise VerificationError(f"the directory of run `{name}` holds run `{report.run}`")
    return report


def failure(error: VerificationError) -> Fields:
    """Return a failed verification as JSON."""
    if isinstance(error, UnsealedError):
        return error.report.fields() | {"error": str(error)}
    return {"state": "tampered", "error": str(error), "record": error.sequence}


def sentence(report: Report) -> str:
    """Return what was found in one line."""
    records, denials = _number(report.records, "record"), report.receipts + report.unreceipted
    signer = _signer(report) + ("" if report.enforcing else "; dry run: nothing was enforced")
    if report.degraded:
        signer += f"; degraded, the host had no {', '.join(report.degraded)}"
    if report.state is State.UNSEALED:
        return (
            f"ok, but unsealed: {records}, of which a signature vouches for the first {report.signed:,}; "
            f"{_number(denials, 'denial')}, {report.unreceipted:,} without a receipt; {_torn(report)}{signer}"
        )
    receipts = ", each with a receipt" if denials else ""
    return f"ok: {records}, {_number(denials, 'denial')}{receipts}; {signer}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _torn(report: Report) -> str:
    return f"the last line is torn after {report.torn:,} bytes; " if report.torn else ""


def _signer(report: Report) -> str:
    if not report.signed:
        return "signed by nobody"
    trust = "trusted" if report.trusted else "not pinned: pass --public-key to pin"
    return f"signed by key {report.key} ({trust})"
