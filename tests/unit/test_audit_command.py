"""`helm-sentry audit` over a log that the log itself wrote."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.audit.query import COLUMNS, Query, moment
from helm_sentry.audit.summary import _REASONS, Summary
from helm_sentry.cli.audit import audit
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.operation import Kind, Operation

RUN = "20261121-071503-ab12cd"
START = 1_763_700_000_000_000  # 2025-11-21T04:40:00Z
ALLOWED, BLOCKED = Decision(Verdict.ALLOW, Reason.RULE, "work"), Decision(Verdict.DENY, Reason.BLOCK, "keys")
DEFAULT = Decision(Verdict.DENY, Reason.DEFAULT)


def records():
    def file(kind, path, decided=ALLOWED, tid=41, **members):
        return record.decision(tid, "openat", [Operation(kind, path=path)], decided, "fd", **members)

    connect = Operation(
        Kind.NET_CONNECT, address="192.0.2.7", port=443, protocol="tcp", hosts=("a.example", "b.example")
    )
    rename = [Operation(Kind.FILE_RENAME, path="/w/a"), Operation(Kind.FILE_RENAME, path="/w/b")]
    return [
        record.start(
            run=RUN, version="0", argv=["agent", "x"], user="u:u", host="h", features=[], degraded=[], digests={}
        ),
        record.executed(40, "/bin/sh", "1:1", ["sh"]),
        file(Kind.FILE_READ, "/w/a"),
        file(Kind.FILE_WRITE, "/w/sub/b"),
        file(Kind.FILE_WRITE, "/w/failed"),
        record.outcome(4, "ENOSPC"),
        file(Kind.FILE_READ, "/etc/shadow", BLOCKED, errno="EACCES"),
        file(Kind.FILE_READ, "/etc/shadow", BLOCKED, errno="EACCES"),
        file(Kind.FILE_CREATE, "/x\x1b[2J", DEFAULT, tid=42, errno="EACCES"),
        record.executed(43, "/bin/cat", "1:2", ["cat"], [42, 40]),
        record.decision(43, "connect", [connect], ALLOWED, "value"),
        record.decision(43, "rename", rename, ALLOWED, "value"),
        record.traffic(10, connect, 512, 128, exact=True),
    ]


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "helm-sentry" / "runs" / RUN
    path.mkdir(parents=True)
    ticks = iter(range(START, START + 10**9, 1_000_000))
    log = AuditLog(str(path), RUN, clock=lambda: next(ticks) * 1000)
    for fields in records():
        log.append(fields)
    log.end(lambda counts: record.end(counts, exit_status=3))
    return path


@pytest.fixture
def call(directory, monkeypatch):
    monkeypatch.chdir("/usr/bin")  # paths may be relative
    return lambda *arguments: CliRunner().invoke(audit, arguments)


def sequences(output):
    return [json.loads(line)["seq"] for line in output.splitlines()]


class TestShow:
    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ([], list(range(14))),
            (["--verdict", "DENY"], [6, 7, 8]),
            (["--verdict", "DENY", "--rule", "keys"], [6, 7]),
            (["--rule", "k*", "--rule", "default"], [6, 7, 8]),
            (["--operation", "file.*", "--verdict", "ALLOW"], [2, 3, 4, 11]),
            (["--operation", "net.*"], [10]),
            (["--path", "/w"], [2, 3, 4, 11]),
            (["--path", "/w/b"], [11]),
            (["--path", "/*/cat"], [9]),
            (["--path", "/"], [1, 2, 3, 4, 6, 7, 8, 9, 11]),
            (["--host", "192.0.2.*"], [10, 12]),
            (["--host", "192.0.2.0/29"], [10, 12]),
            (["--host", "192.0.2.8/29"], []),
            (["--host", "B.example"], [10]),
            (["--verdict", "deny", "--path", "../../etc"], [6, 7]),
            (["--pid", "42", "--pid", "40"], [1, 8]),
            (["--type", "exec", "--type", "end"], [1, 9, 13]),
            (["--since", "2025-11-21T04:40:12"], [12, 13]),
            (["--since", "2025-11-21T05:40:02+01:00", "--until", "2025-11-21T04:40:04Z"], [2, 3]),
            (["--since", "1h"], []),
        ],
    )
    def test_filters(self, call, filters, expected):
        assert sequences(call("show", RUN, "--json", *filters).output) == expected

    def test_the_latest_run_is_meant(self, call):
        assert call("show").output == call("show", RUN).output

    def test_lines_for_people_cannot_steer_the_terminal(self, call):
        output = call("show", "--verdict", "DENY").output
        assert "04:40:06.000 DENY     file.read /etc/shadow [keys] EACCES (thread 41)" in output
        assert "\x1b" not in output
        assert "\\x1b" in output

    def test_json_is_the_log(self, call, directory):
        assert call("show", "--json").output == (directory / "audit.jsonl").read_text()

    def test_csv(self, call):
        rows = list(csv.DictReader(io.StringIO(call("show", "--csv").output)))
        assert tuple(rows[0]) == COLUMNS
        assert [row["target"] for row in rows if row["verdict"] == "DENY"][:2] == ["/etc/shadow"] * 2

    def test_a_time_that_is_none(self, call):
        with pytest.raises(UsageError, match="not a time"):
            raise call("show", "--since", "yesterday").exception

    @pytest.mark.parametrize(
        ("filters", "words"),
        [
            (["--operation", "file.touch"], "no kind of operation is `file.touch`; there are file.read, file.list"),
            (["--operation", "network.*"], "no kind of operation is"),
        ],
    )
    def test_an_operation_that_is_none(self, call, filters, words):
        with pytest.raises(UsageError, match=re.escape(words)):
            raise call("show", *filters).exception

    def test_a_type_that_is_none(self, call):
        found = call("show", "--type", "descision")
        assert found.exit_code == 2
        assert "'decision'" in found.output

    def test_the_start_says_what_was_run(self, call):
        assert call("show", "--type", "start").output.split(maxsplit=2)[2] == "start    agent x as u:u\n"

    def test_a_damaged_log(self, call, directory):
        with (directory / "audit.jsonl").open("r+b") as file:
            file.write(b"x")
        with pytest.raises(VerificationError, match="line 1 of the log is damaged"):
            raise call("show").exception

    def test_no_runs(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        assert isinstance(CliRunner().invoke(audit, ["show"]).exception, UsageError)


class TestTail:
    @pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [12, 13]), (99, list(range(14)))])
    def test_the_last_ones(self, call, count, expected):
        assert sequences(call("tail", "--json", "-n", str(count)).output) == expected

    def test_of_those_that_are_wanted(self, call):
        assert sequences(call("tail", "--json", "-n", "2", "--verdict", "DENY").output) == [7, 8]

    def test_following_sees_what_is_written_until_the_end(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        path = tmp_path / "helm-sentry" / "runs" / RUN
        path.mkdir(parents=True)
        log = AuditLog(str(path), RUN)
        log.append(records()[0])
        log.append(records()[1])
        program = "from helm_sentry.cli.audit import audit; audit()"
        command = [sys.executable, "-c", program, "tail", "-f", "-n", "1", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert json.loads(process.stdout.readline())["seq"] == 1
            log.append(records()[2])
            assert json.loads(process.stdout.readline())["seq"] == 2
            log.rotate(above=0)
            log.append(records()[3])
            assert json.loads(process.stdout.readline())["seq"] == 3
            log.end(lambda counts: record.end(counts, exit_status=0))
            assert json.loads(process.stdout.readline())["type"] == "end"
            assert process.wait(30) == 0


class TestStats:
    def test_counts(self, call):
        found = json.loads(call("stats", "--json").output)
        assert {"by": "operation", "name": "file.read", "verdict": "DENY", "count": 2} in found
        assert {"by": "rule", "name": "work", "verdict": "ALLOW", "count": 5} in found
        assert "14 records, 8 decisions" in call("stats").output
        assert call("stats", "--csv", "--verdict", "DENY").output.splitlines()[1] == "operation,file.create,DENY,1"


class TestSummary:
    def test_says_it_all(self, call):
        assert call("summary").output.splitlines() == [
            f"run {RUN} of: agent x",
            "as u:u, 13.0 s, exit status 3",
            "8 decisions, 3 not allowed",
            "not allowed:",
            "  file.read /etc/shadow: block rule `keys` (2 times)",
            "  file.create /x\\x1b[2J: no rule allows it",
            "files written:",
            "  /w/sub/b",
            "  /w/b",
            "programs run:",
            "  /bin/sh",
            "  /bin/cat",
            "addresses reached:",
            "  192.0.2.7:443, that is a.example, b.example, 512 bytes sent, 128 received",
            "processes:",
            "  40 /bin/sh",
            "    43 /bin/cat",
        ]

    def test_json(self, call):
        found = json.loads(call("summary", "--json").output)
        assert found["processes"][1] == {"pid": 43, "parent": 40, "programs": ["/bin/cat"]}
        assert found["written"] == {"/w/b": 1, "/w/sub/b": 1}

    def test_every_reason_has_words(self):
        assert set(_REASONS) == set(Reason) - {Reason.RULE}

    def test_what_a_person_was_asked_is_not_called_denied(self):
        found = Summary()
        operation = [Operation(Kind.FILE_READ, path="/w/secret")]
        for verdict, reason in ((Verdict.ESCALATE, Reason.CONDITION), (Verdict.ALLOW, Reason.APPROVED)):
            found.add(record.decision(41, "openat", operation, Decision(verdict, reason, "ask"), "fd"))
        assert "2 decisions, 0 not allowed, 1 asked about" in found.text()
        assert "not allowed: none\na person was asked:\n  file.read /w/secret: rule `ask`\n" in found.text()

    def test_a_run_that_goes_on(self):
        found = Summary()
        found.add(records()[0] | {"time": START, "seq": 0})
        assert "no end record: still running, or killed" in found.text()
        assert "files written: none" in found.text()

    def test_long_lists_are_cut(self):
        found = Summary()
        for number in range(50):
            operation = Operation(Kind.FILE_READ, path=f"/secret/{number}")
            found.add(record.decision(1, "openat", [operation], DEFAULT, "errno") | {"time": START})
        assert "  … and 30 more; `--json` has all" in found.text()


def test_moments():
    assert moment("90s", 100_000_000) == 10_000_000
    assert moment("1970-01-01T00:00:01", 0) == moment("1970-01-01T01:00:01+01:00", 0) == 1_000_000
    with pytest.raises(ValueError, match="isoformat"):
        moment("m", 0)


def test_a_record_without_a_time_is_never_wanted():
    assert not Query().matches({"type": "decision"})
