"""A machine that loses power at any moment: the run is told from one that was tampered with.

What is simulated is what the writers leave to chance. The log is synced before anything that was signed about it is
written, so it may be cut, or lose pages, anywhere behind the last signature; a file of signatures may be cut anywhere.
"""

import base64
import os
import random
import threading
from itertools import islice

import pytest
from receipt_runs import KEY, begin, contents, decision, run_files

from helm_sentry.audit.canonical import loads
from helm_sentry.audit.merkle import BLOCK
from helm_sentry.decision import Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, LOG, TREE, State, UnsealedError
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.verify import verify_run

MOMENTS = int(os.environ.get("HELM_SENTRY_TEST_MOMENTS", "60"))
EACH = 20  # moments of one run
PAGE = 4096
SIGNATURES = (CHECKPOINTS, TREE, DENIALS)


def snapshots(directory, chance, count):
    """What is on the disk at random moments while runs go on: signatures first, so the log is never behind."""
    for number in range(-(-count // EACH)):
        (directory / str(number)).mkdir()
        yield from islice(_snapshots(directory / str(number), chance), min(EACH, count - number * EACH))


def _snapshots(directory, chance):
    log = begin(str(directory))
    signer = Signer(str(directory), KEY)
    enough = threading.Event()

    def write():
        for number in range(1500):
            log.append(decision(Verdict.DENY if number % 17 == 0 else Verdict.ALLOW))
            signer.notify()
            if enough.wait(0.0001):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while True:
            enough.wait(chance.uniform(0, 0.03))
            files = {name: (directory / name).read_bytes() for name in SIGNATURES}
            yield contents(directory) | files | {LOG: (directory / LOG).read_bytes()}
    finally:
        enough.set()
        writer.join()
        signer.close()
        log.close()


def signed_size(files):
    """How many bytes of the log the whole signatures speak for."""
    notes = files[CHECKPOINTS].splitlines()
    sizes = [int(notes[at]) for at in range(1, len(notes) - 3, 5)]
    sequences = [0]
    for line in files[DENIALS].splitlines(keepends=True):
        if line.endswith(b"\n"):
            payload = base64.b64decode(loads(line[:-1])["payload"])
            sequences.append(loads(payload)["seq"] + 1)
    blocks = files[TREE].count(b"\n") * BLOCK  # not signed, and written as late
    count = max([*sizes, *sequences, blocks])
    return sum(map(len, files[LOG].splitlines(keepends=True)[:count]))


def lose(chance, data, kept):
    """Data after a power failure, of which the first `kept` bytes were on the disk."""
    at = chance.randint(kept, len(data))
    page = -(-at // PAGE) * PAGE
    match chance.randrange(4):
        case 0:  # not written
            return data[:at]
        case 1 if page < len(data):  # the size was written, the last pages were not
            return data[:page] + bytes(len(data) - page)
        case 2 if page + PAGE < len(data):  # a page in between was not
            return data[:page] + bytes(PAGE) + data[page + PAGE :]
        case _:
            return data


def test_is_no_tampering_and_says_where_it_ended(tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance, lost, torn = random.Random(seed), 0, 0
    for files in snapshots(tmp_path, chance, MOMENTS):
        kept = signed_size(files)
        left = files | {LOG: lose(chance, files[LOG], kept)}
        left |= {name: lose(chance, files[name], 0) for name in SIGNATURES}
        with pytest.raises(
            UnsealedError, match=r"the run ended without a seal (after record \d+|before its first record)"
        ) as caught:
            verify_run(run_files(left))
        report = verify_run(run_files(left), allow_unsealed=True)
        assert report == caught.value.report
        assert report.state is State.UNSEALED
        assert sum(map(len, files[LOG].splitlines(keepends=True)[: report.records])) >= kept
        lost, torn = lost + (left[LOG] != files[LOG]), torn + (report.torn > 0)
    print(f"{MOMENTS} moments, {lost} with a log that lost something, {torn} torn; all told from tampering")
    assert lost > MOMENTS / 3
    assert torn > MOMENTS / 10


def test_whatever_touches_the_signed_part_is_tampering(tmp_path):
    chance = random.Random(5)
    tried = 0
    for files in snapshots(tmp_path, chance, MOMENTS):
        kept = signed_size(files)
        if not kept:
            continue
        changed = bytearray(files[LOG])
        changed[chance.randrange(kept)] ^= 1 << chance.randrange(7)
        for log in (bytes(changed), files[LOG][: chance.randrange(kept)]):
            with pytest.raises(VerificationError) as caught:
                verify_run(run_files(files | {LOG: log}), allow_unsealed=True)
            assert not isinstance(caught.value, UnsealedError)
        tried += 1
    print(f"{2 * tried} changes within what was signed, all called tampering")
    assert tried > MOMENTS / 2


@pytest.mark.parametrize("name", [LOG, CHECKPOINTS, DENIALS])
def test_a_zero_byte_is_not_a_lost_page(tmp_path, name):
    """One byte may not be taken for what a power failure leaves, or it would hide the record it is in."""
    log = begin(str(tmp_path))
    signer = Signer(str(tmp_path), KEY)
    for number in range(60):
        log.append(decision(Verdict.DENY if number % 5 == 0 else Verdict.ALLOW))
    signer.close()
    files = contents(tmp_path)
    assert verify_run(run_files(files), allow_unsealed=True).signed == 61
    places = [at for at in range(len(files[name]) - 2) if at % 512 and files[name][at] not in b"\0\n"]
    for at in random.Random(2).sample(places, 20):
        data = files[name][:at] + b"\0" + files[name][at + 1 :]
        with pytest.raises(VerificationError) as caught:
            verify_run(run_files(files | {name: data}), allow_unsealed=True)
        assert not isinstance(caught.value, UnsealedError)
