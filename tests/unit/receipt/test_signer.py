"""When what is signed: a denial at once, a checkpoint each second or 1,024 records, and at the end."""

import threading
import time
from itertools import pairwise

import pytest
from receipt_runs import KEY, begin, decision

from helm_sentry.audit import record
from helm_sentry.audit.checkpoint import MOST_RECORDS
from helm_sentry.decision import Verdict
from helm_sentry.errors import AuditError
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, SEAL
from helm_sentry.receipt.signer import Signer

DEADLINE = 30.0


@pytest.fixture
def run(tmp_path):
    log = begin(str(tmp_path))
    signer = Signer(str(tmp_path), KEY)
    yield tmp_path, log, signer
    log.close()


def until(condition):
    """Return after how many seconds something was so."""
    begun, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - begun < DEADLINE, "waited in vain"
        pause.wait(0.005)
    return time.monotonic() - begun


def sizes(directory):
    notes = (directory / CHECKPOINTS).read_text().split("helm-sentry/run/")
    return [int(note.splitlines()[1]) for note in notes[1::2]]


@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.ESCALATE])
def test_a_denial_is_signed_at_once(run, verdict):
    directory, log, signer = run
    log.append(decision(Verdict.ALLOW))
    signer.notify()
    for number in (1, 2):
        log.append(decision(verdict))
        signer.notify()
        until(lambda number=number: (directory / DENIALS).read_bytes().count(b"\n") == number)
    assert not (directory / SEAL).exists()
    signer.close()


def test_a_checkpoint_each_second_although_nobody_asks(run):
    directory, log, signer = run
    until(lambda: sizes(directory) == [1])
    log.append(decision(Verdict.ALLOW))
    assert until(lambda: sizes(directory) == [1, 2]) < DEADLINE / 2
    signer.close()


def test_a_checkpoint_each_1024_records_and_at_the_end(run):
    directory, log, signer = run
    for _ in range(5 * MOST_RECORDS):
        log.append(decision(Verdict.ALLOW))
    log.append(record.end(log.counts, exit_status=0))
    signer.seal(log.totals)
    found = [0, *sizes(directory)]
    assert found[-1] == 5 * MOST_RECORDS + 2
    assert max(new - old for old, new in pairwise(found)) == MOST_RECORDS == 1024


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("a mistake")])
def test_whatever_stops_the_signing_ends_the_run(tmp_path, error):
    log, heard = begin(str(tmp_path)), []

    def refuse():
        raise error

    signer = Signer(str(tmp_path), KEY, heard.append, refuse)
    signer.notify()
    until(lambda: heard)
    assert str(heard[0]) == f"receipts cannot be written: {error}"
    with pytest.raises(AuditError, match=str(error)):
        signer.notify()
    with pytest.raises(AuditError):
        signer.close()
    log.close()
