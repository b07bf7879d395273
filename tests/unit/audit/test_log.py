import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import AuditError
from helm_sentry.native import library

STATES = {"own": lambda: None, "shared with the receiver": lambda: library.load().log_state()}
state = STATES["own"]


@pytest.fixture(params=STATES, autouse=True)
def each_state(request):
    global state
    state = STATES[request.param]


def new_log(directory, run_id, **options):
    return AuditLog(directory, run_id, state=state(), **options)


def decision(verdict=Verdict.ALLOW):
    return record.decision(1, "openat", [], Decision(verdict, Reason.RULE, "r"), "fd")


def read_back(directory):
    prev, records = record.FIRST_PREV, []
    with open(directory / "audit.jsonl", "rb") as file:
        for seq, line in enumerate(file):
            records.append(record.read(line[:-1], seq, prev))
            prev = records[-1]["hash"]
    return records


class TestAppend:
    def test_chains_what_it_writes(self, tmp_path):
        log = new_log(str(tmp_path), "run", clock=lambda: 1_700_000_000_123_456_789)
        given = [decision(), decision(Verdict.DENY), record.notice("X", "y")]
        assert [log.append(fields) for fields in given] == [0, 1, 2]
        assert read_back(tmp_path) == given
        assert given[0]["time"] == 1_700_000_000_123_456

    def test_a_clock_that_jumps_breaks_no_chain(self, tmp_path):
        jumps = iter([1_700_000_000 * 10**9, 0, 9_000_000 * 10**9 * 1000, 1, 1_700_000_001 * 10**9])
        log = new_log(str(tmp_path), "run", clock=lambda: next(jumps))
        given = [decision() for _ in range(5)]
        assert [log.append(fields) for fields in given] == list(range(5))
        assert read_back(tmp_path) == given

    def test_a_clock_beyond_what_a_record_holds_is_a_refusal(self, tmp_path):
        times = iter([1, 2**80, 2])
        log = new_log(str(tmp_path), "run", clock=lambda: next(times))
        log.append(decision())
        with pytest.raises(AuditError, match="cannot be written"):
            log.append(decision())
        log.append(decision())
        assert len(read_back(tmp_path)) == 2

    def test_totals(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        for verdict in (Verdict.ALLOW, Verdict.DENY, Verdict.ALLOW):
            log.append(decision(verdict))
        log.append(record.notice("X", ""))
        assert log.counts == {"ALLOW": 2, "DENY": 1, "ESCALATE": 0}
        assert log.totals == record.Totals(
            records=4,
            counts=log.counts,
            head=read_back(tmp_path)[-1]["hash"],
            size=os.path.getsize(tmp_path / "audit.jsonl"),
        )
        assert (log.count, log.head) == (4, log.totals.head)

    def test_a_record_is_in_the_file_when_append_returns(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        for count in range(1, 4):
            log.append(decision())
            assert len(read_back(tmp_path)) == count

    def test_threads_share_one_chain(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        threads = [threading.Thread(target=lambda: [log.append(decision()) for _ in range(500)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read_back(tmp_path)) == log.count == 4000

    def test_a_record_without_a_canonical_form_leaves_the_log_as_it_was(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        log.append(decision())
        with pytest.raises(AuditError, match="canonical"):
            log.append({"type": "notice", "detail": "\udcff"})
        assert log.append(decision()) == 1
        assert len(read_back(tmp_path)) == 2


class TestFile:
    def test_is_the_owners_alone(self, tmp_path):
        new_log(str(tmp_path), "run")
        assert stat.S_IMODE(os.stat(tmp_path / "audit.jsonl").st_mode) == 0o600

    def test_can_be_made_in_an_open_directory(self, tmp_path):
        directory = os.open(tmp_path, os.O_RDONLY)
        new_log(directory, "run").append(decision())
        os.close(directory)
        assert len(read_back(tmp_path)) == 1

    @pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to("/dev/null")])
    def test_is_always_new(self, tmp_path, make):
        make(tmp_path / "audit.jsonl")
        with pytest.raises(AuditError, match="`run-7` cannot be created"):
            new_log(str(tmp_path), "run-7")


class TestFailure:
    def run_with_limit(self, directory, limit):
        program = """
import resource, sys
from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.errors import AuditError
from helm_sentry.native import library
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), unlimited))
log = AuditLog(sys.argv[1], "run", state=library.load().log_state() if sys.argv[3] == "shared" else None)
failures = []
for _ in range(4):
    try:
        log.append(record.notice("X", "y" * 1000))
    except AuditError as error:
        failures.append(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
print(log.count, len(set(failures)), failures[0])
"""
        command = [sys.executable, "-c", program, str(directory), str(limit), "own" if state() is None else "shared"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def test_a_short_write_ends_the_log(self, tmp_path):
        printed = self.run_with_limit(tmp_path, 3000)
        assert printed.startswith("2 1 ")
        assert "bytes were written; is the disk full?" in printed
        assert os.path.getsize(tmp_path / "audit.jsonl") == 3000

    def test_a_refused_write_ends_the_log(self, tmp_path):
        printed = self.run_with_limit(tmp_path, 0)
        assert printed.startswith("0 1 ")
        assert "File too large" in printed

    def test_a_log_that_failed_stays_dead_although_the_disk_recovers(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        log.append(decision())
        full = os.open("/dev/full", os.O_WRONLY)
        working = os.dup(log._state.file)
        os.dup2(full, log._state.file)
        with pytest.raises(AuditError, match="No space left"):
            log.append(decision())
        os.dup2(working, log._state.file)
        with pytest.raises(AuditError, match="No space left"):
            log.append(decision())
        assert len(read_back(tmp_path)) == log.count == 1

    def test_a_failed_sync_ends_the_log(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        read_end, write_end = os.pipe()
        os.dup2(write_end, log._state.file)  # fdatasync of a pipe is EINVAL
        with pytest.raises(AuditError):
            log.sync()
        with pytest.raises(AuditError):
            log.append(decision())
        os.close(read_end), os.close(write_end)

    def test_a_closed_log_takes_nothing(self, tmp_path):
        log = new_log(str(tmp_path), "run")
        log.sync()
        log.close()
        with pytest.raises(AuditError, match="closed"):
            log.append(decision())


def test_nothing_stands_behind_the_end(tmp_path):
    """Workers that are late when a run ends must not append to a log that is about to be sealed."""
    log = new_log(str(tmp_path), "run")
    stop, refused = threading.Event(), []

    def late() -> None:
        while not stop.is_set():
            try:
                log.append(record.notice("bad-arguments", "late"))
            except AuditError:
                refused.append(1)
                return

    workers = [threading.Thread(target=late) for _ in range(4)]
    for worker in workers:
        worker.start()
    log.end(lambda counts: record.end(counts, exit_status=0))
    for worker in workers:
        worker.join(10)
    stop.set()
    last = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert last["type"] == "end"
    assert len(refused) == 4
    assert log.totals.records == last["seq"] + 1
