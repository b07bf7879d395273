"""Negative conformance, executed: each vector is met by a live process, and judged by the receipts it left."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.decision import Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.evidence import reasons, statement, vectors
from helm_sentry.evidence.trial import Stage, Trial
from helm_sentry.evidence.vectors import Vector
from helm_sentry.receipt.envelope import Envelope
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.report import DENIALS
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run

_TWO_DAYS = 2 * 86400
_REFUSED_START, _FAILED = 2, 125


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one vector.

    Attributes:
        vector: which.
        ran: the command.
        verdict: what was decided, empty when nothing was.
        code: HELM's reason code for it.
        run: id of the run.
        record: number of the record the receipt is for; -1 when the receipt is about the whole run.
        receipt: SHA-256 of the receipt: of the run's own for a denial, otherwise of the signed finding.
        envelope: the finding, signed.
        faults: what was not as expected.
    """

    vector: Vector
    ran: str
    verdict: str
    code: str
    run: str
    record: int
    receipt: str
    envelope: str
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the vector came out as HELM expects."""
        return not self.faults

    def fields(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "id": self.vector.id,
            "trigger": self.vector.trigger,
            "ran": self.ran,
            "expected": {"verdict": "DENY", "reason_code": self.vector.code},
            "verdict": self.verdict,
            "reason_code": self.code,
            "run": self.run,
            "record": None if self.record < 0 else self.record,
            "receipt_sha256": self.receipt,
            "envelope": loads(self.envelope.encode()),
            "passed": self.passed,
            "faults": list(self.faults),
        }


@dataclass(slots=True)
class _Judgement:
    """What is gathered about a vector before it is signed."""

    trial: Trial
    verdict: str = ""
    code: str = ""
    record: int = -1
    receipt: str = ""
    faults: tuple[str, ...] = ()


def conform(key: SigningKey) -> Iterator[Result]:
    """Meet every vector and yield what came of it, signed.

    Args:
        key: signs the findings; the runs' own receipts must be signed by it too.
    """
    return meet([*vectors.START, *vectors.ACTS, vectors.UNRECEIPTED, vectors.DROPPED], key)


def meet(chosen: Iterable[Vector], key: SigningKey) -> Iterator[Result]:
    """Meet some vectors, each on a stage of its own."""
    for vector in chosen:
        directory = os.path.realpath(tempfile.mkdtemp(prefix="sentry-conform-"))
        try:
            with Stage(directory) as stage:
                found = _WAYS.get(vector.id, _act)(stage, key, vector)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        yield _signed(vector, found, key)


def _start(stage: Stage, key: SigningKey, vector: Vector) -> _Judgement:
    """A run that must not begin; with the policy in order the same command runs."""
    script, mark = 'open("started", "w").close()', os.path.join(stage.workspace, "started")
    policy = stage.policy()
    fresh = stage.supervised(script, policy, ("--max-policy-age", "1h"))
    began = os.path.lexists(mark)
    if began:
        os.unlink(mark)
    if vector.id == vectors.NOT_READY:
        os.unlink(policy)
    else:
        os.utime(policy, (time.time() - _TWO_DAYS,) * 2)
    trial = stage.supervised(script, policy, ("--max-policy-age", "1h"))
    found = _denial(trial, key, vector, stage, 1)
    return _with(
        found,
        ("the control did not run", fresh.status != 0 or not began),
        (f"it ended with status {trial.status}", trial.status != _REFUSED_START),
        ("the program was started", os.path.lexists(mark)),
    )


def _act(stage: Stage, key: SigningKey, vector: Vector) -> _Judgement:
    """What an agent does: free it succeeds, supervised it is refused, and nothing of it arrives."""
    free = stage.free(vector.script)
    wanted = vector.granted + vector.attempts
    # A kernel may refuse a ring to everybody; then the record alone shows that it was us.
    succeeded = free.lines[:wanted] == ("done",) * wanted or vector.target == "io_uring_setup"
    stage.visits()
    trial = stage.supervised(vector.script, stage.policy(vector.rules))
    found = _denial(trial, key, vector, stage, vector.attempts)
    granted, refused = trial.lines[: vector.granted], trial.lines[vector.granted : wanted]
    return _with(
        found,
        ("without a supervisor it does not succeed, so its refusal would show nothing", not succeeded),
        ("what was granted did not succeed", granted != ("done",) * vector.granted),
        (
            "it was not refused",
            len(refused) != vector.attempts or any(not line.startswith("refused") for line in refused),
        ),
        ("a refused connection arrived", stage.visits() > 0),
        ("the caller's key is in the agent's environment", "key not for agents" in trial.lines),
    )


def _denial(trial: Trial, key: SigningKey, vector: Vector, stage: Stage, attempts: int) -> _Judgement:
    """Find the denials in a run that verifies, and open the receipt of the first."""
    found = _Judgement(trial)
    if not trial.directory:
        return _with(found, ("there is no run", True))
    try:
        verify_run(read_run(trial.directory), [key.public])
        denials = [record for record in _receipted(trial.directory, key) if _meant(record[0], vector, stage)]
    except VerificationError as error:
        return _with(found, (str(error), True))
    if not denials:
        return _with(found, ("no receipt of this denial", True))
    record, found.receipt = denials[0]
    found.record, found.verdict = int(record["seq"]), str(record["verdict"])
    kinds = [str(kind) for kind in record["ops"]]
    found.code = reasons.code(found.verdict, str(record["reason"]), kinds, str(record["target"]))
    return _with(
        found,
        (f"{len(denials)} denials, not {attempts}", len(denials) < attempts),
        (f"reason code {found.code}", found.code != vector.code),
        (f"verdict {found.verdict}", found.verdict != Verdict.DENY),
    )


def _receipted(directory: str, key: SigningKey) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every record that has a receipt of its own, out of the receipt, with the receipt's digest."""
    with open(os.path.join(directory, DENIALS), "rb") as file:
        for line in file:
            payload = loads(Envelope.parse(line).open({key.public.id: key.public}))
            record = payload.get("record") if isinstance(payload, dict) else None
            if isinstance(record, dict):
                yield record, hashlib.sha256(line[:-1]).hexdigest()


def _meant(record: dict[str, Any], vector: Vector, stage: Stage) -> bool:
    if vector in vectors.START:
        return True
    target = vector.target.format(port=stage.port)
    return vector.kind in record["ops"] and str(record["target"]).endswith(target)


def _unreceipted(stage: Stage, key: SigningKey, vector: Vector) -> _Judgement:
    """Receipts that cannot be written: the agent is ended, and the run does not verify."""
    policy, mark = stage.policy(), os.path.join(stage.workspace, "finished")
    script = vector.script
    control = stage.supervised(script.replace("100_000", "100"), policy)
    finished = os.path.lexists(mark)
    if finished:
        os.unlink(mark)
    trial = stage.supervised(script, policy, cramped=True)
    return _with(
        _unverified(trial, trial.directory, key),
        ("the control did not run to its end", control.status != 0 or not finished),
        (f"it ended with status {trial.status}", trial.status != _FAILED),
        ("the agent went on", os.path.lexists(mark)),
    )


def _dropped(stage: Stage, key: SigningKey, vector: Vector) -> _Judgement:
    """A receipt taken out of a sealed run: the run no longer verifies, though as it was it does."""
    script = vector.script.replace("100_000", "3")
    trial = stage.supervised(script, stage.policy())
    if not trial.directory:
        return _with(_Judgement(trial), ("there is no run", True))
    copy = os.path.join(stage.directory, "copy")
    shutil.copytree(trial.directory, copy)
    whole = _verifies(copy, key)
    with open(os.path.join(copy, DENIALS), "r+b") as file:
        lines = file.readlines()
        file.seek(0)
        file.writelines(lines[1:])
        file.truncate()
    return _with(_unverified(trial, copy, key), ("the run did not verify as it was", not whole))


def _unverified(trial: Trial, directory: str, key: SigningKey) -> _Judgement:
    found = _Judgement(trial)
    if not directory or _verifies(directory, key):
        return _with(found, ("a denial without its receipt was accepted", True))
    found.verdict, found.code = str(Verdict.DENY), reasons.VERIFICATION
    return found


def _verifies(directory: str, key: SigningKey) -> bool:
    try:
        verify_run(read_run(directory), [key.public])
    except VerificationError:
        return False
    return True


def _with(found: _Judgement, *checks: tuple[str, bool]) -> _Judgement:
    found.faults += tuple(text for text, wrong in checks if wrong)
    return found


def _signed(vector: Vector, found: _Judgement, key: SigningKey) -> Result:
    run = os.path.basename(found.trial.directory)
    finding: Fields = {
        "vector": vector.id,
        "expected_verdict": "DENY",
        "expected_reason_code": vector.code,
        "verdict": found.verdict,
        "reason_code": found.code,
        "run": run,
        "record": found.record,
        "receipt_sha256": found.receipt,
        "must_not_dispatch": True,
        "faults": list(found.faults),
    }
    envelope = statement.sign(statement.CONFORMANCE, finding, key)
    return Result(
        vector=vector,
        ran=" ".join(found.trial.command),
        verdict=found.verdict,
        code=found.code,
        run=run,
        record=found.record,
        receipt=found.receipt or hashlib.sha256(envelope).hexdigest(),
        envelope=envelope.decode(),
        faults=found.faults,
    )


_WAYS: dict[str, Callable[[Stage, SigningKey, Vector], _Judgement]] = {
    **{vector.id: _start for vector in vectors.START},
    vectors.UNRECEIPTED.id: _unreceipted,
    vectors.DROPPED.id: _dropped,
}
