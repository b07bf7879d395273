"""A log that goes on in more than one file, compressed behind the run."""

import gzip
import os

import pytest
from receipt_runs import KEY, RUN, begin, contents, decision

from helm_sentry.audit import record
from helm_sentry.audit.segments import Follower, segment_name, stored_names
from helm_sentry.decision import Verdict
from helm_sentry.errors import AuditError, VerificationError
from helm_sentry.receipt.report import SEAL, SEGMENTS
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run

FIRST = "audit.jsonl.gz"


def rotated(directory, count=900, every=300, seal=True):
    log = begin(str(directory))
    signer = Signer(str(directory), KEY)
    for number in range(count):
        log.append(decision(Verdict.DENY if number % 150 == 0 else Verdict.ALLOW))
        if number % every == every - 1:
            assert log.rotate(above=0)
    if seal:
        log.append(record.end(log.counts, exit_status=0))
        signer.seal(log.totals)
    log.close()
    return signer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rotated")
    rotated(directory)
    return directory


@pytest.fixture
def copy(run, tmp_path):
    for name, data in contents(run).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


class TestRotation:
    def test_leaves_compressed_segments_and_the_last_one(self, run):
        assert list(stored_names(str(run))) == [
            FIRST, "audit.000001.jsonl.gz", "audit.000002.jsonl.gz", "audit.000003.jsonl",
        ]  # fmt: skip
        assert not [name for name in os.listdir(run) if name.startswith(".")]

    def test_the_chain_and_the_tree_run_through(self, run):
        report = verify_run(read_run(str(run)), [KEY.public])
        assert (report.records, report.receipts, report.others) == (902, 6, ())
        assert report.checkpoints >= 1

    def test_a_small_log_stays_in_one_file(self, tmp_path):
        log = begin(str(tmp_path))
        assert not log.rotate()
        assert list(stored_names(str(tmp_path))) == [segment_name(0)]

    def test_a_log_that_has_ended_is_left_alone(self, tmp_path):
        log = begin(str(tmp_path))
        log.end(lambda counts: record.end(counts, exit_status=0))
        assert not log.rotate(above=0)

    def test_a_name_that_is_taken_ends_the_log(self, tmp_path):
        log = begin(str(tmp_path))
        (tmp_path / ".audit.000001.jsonl").touch()
        with pytest.raises(AuditError, match="cannot be written"):
            log.rotate(above=0)
        with pytest.raises(AuditError, match="cannot be written"):
            log.append(decision(Verdict.ALLOW))

    def test_a_follower_reads_on(self, tmp_path):
        log = begin(str(tmp_path))
        follower = Follower(str(tmp_path))
        seen = follower.read()
        log.append(decision(Verdict.ALLOW))
        log.rotate(above=0)
        log.append(decision(Verdict.DENY))
        while chunk := follower.read():
            seen += chunk
        follower.close()
        assert seen == b"".join((tmp_path / name).read_bytes() for name in stored_names(str(tmp_path)))

    def test_a_follower_that_is_late_reads_what_was_compressed(self, run):
        follower = Follower(str(run))
        lines = 0
        while chunk := follower.read():
            lines += chunk.count(b"\n")
        assert lines == 902


class TestTampering:
    def fails(self, directory, match):
        with pytest.raises(VerificationError, match=match):
            verify_run(read_run(str(directory)))

    def test_every_byte_of_a_compressed_segment_counts(self, copy):
        whole = (copy / FIRST).read_bytes()
        for place in [*range(30), *range(30, len(whole), 997), *range(len(whole) - 10, len(whole))]:
            changed = bytearray(whole)
            changed[place] ^= 1
            (copy / FIRST).write_bytes(changed)
            self.fails(copy, r"audit.jsonl.gz|segments.jsonl line 1")

    def test_the_same_lines_compressed_otherwise(self, copy):
        (copy / FIRST).write_bytes(gzip.compress(gzip.decompress((copy / FIRST).read_bytes()), 1))
        self.fails(copy, r"receipts/segments.jsonl line 1 \(byte 0\): not the statement about .*audit.jsonl.gz")

    def test_a_segment_unpacked(self, copy):
        (copy / "audit.jsonl").write_bytes(gzip.decompress((copy / FIRST).read_bytes()))
        self.fails(copy, "audit.jsonl: there are two copies")
        (copy / FIRST).unlink()
        self.fails(copy, "a statement about audit.jsonl, which is not compressed")

    def test_a_segment_removed(self, copy):
        (copy / "audit.000001.jsonl.gz").unlink()
        self.fails(copy, "cut off before record")

    def test_segments_exchanged(self, copy):
        os.rename(copy / FIRST, copy / "x")
        os.rename(copy / "audit.000001.jsonl.gz", copy / FIRST)
        os.rename(copy / "x", copy / "audit.000001.jsonl.gz")
        self.fails(
            copy, r"audit.jsonl.gz line 1 \(byte 0, record 0\): record 301 stands here: records 0 to 300 are miss"
        )

    def test_an_empty_segment_added(self, copy):
        (copy / "audit.000004.jsonl").touch()
        self.fails(copy, "audit.000004.jsonl: an empty file")

    def test_every_byte_of_the_statements_counts(self, copy):
        whole = (copy / SEGMENTS).read_bytes()
        for place in range(0, len(whole), 29):
            changed = bytearray(whole)
            changed[place] ^= 1
            (copy / SEGMENTS).write_bytes(changed)
            self.fails(copy, "receipts/segments.jsonl line ")

    def test_a_statement_removed_or_added(self, copy):
        whole = (copy / SEGMENTS).read_bytes().splitlines(keepends=True)
        for lines in (whole[:-1], whole[1:], [*whole, whole[-1]]):
            (copy / SEGMENTS).write_bytes(b"".join(lines))
            self.fails(copy, "receipts/segments.jsonl line ")


class TestCrash:
    """What a kill between two steps of the compression leaves behind."""

    def unsealed(self, directory):
        (directory / SEAL).unlink()
        return verify_run(read_run(str(directory)), allow_unsealed=True)

    def test_before_the_statement(self, copy):
        lines = (copy / SEGMENTS).read_bytes().splitlines(keepends=True)
        (copy / SEGMENTS).write_bytes(b"".join(lines[:2]))
        packed = copy / "audit.000002.jsonl.gz"
        (copy / "audit.000002.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.rename(copy / ".audit.000002.jsonl.gz")
        assert self.unsealed(copy).records == 902

    def test_before_the_file_has_its_name(self, copy):
        packed = copy / "audit.000002.jsonl.gz"
        (copy / "audit.000002.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.rename(copy / ".audit.000002.jsonl.gz")
        assert self.unsealed(copy).records == 902

    def test_before_the_plain_file_is_gone(self, copy):
        packed = copy / "audit.000002.jsonl.gz"
        (copy / "audit.000002.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
        assert self.unsealed(copy).records == 902
        changed = bytearray(packed.read_bytes())
        changed[9] ^= 1
        packed.write_bytes(changed)
        with pytest.raises(VerificationError, match="not the statement about"):
            verify_run(read_run(str(copy)), allow_unsealed=True)

    def test_the_signer_of_a_killed_run_goes_no_further(self, tmp_path):
        signer = rotated(tmp_path, 1500, 600, seal=False)
        signer.close()
        report = verify_run(read_run(str(tmp_path)), allow_unsealed=True)
        assert (report.run, report.records, report.signed) == (RUN, 1501, 1501)
