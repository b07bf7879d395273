"""The format document names every member there is, and its example is what the code writes."""

import itertools
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from receipt_runs import contents

import helm_sentry
from helm_sentry.audit import record
from helm_sentry.audit.line import decision_line
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker.name_server import LOOKED_UP, TOO_MANY, UNSTATED
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.loader import load
from helm_sentry.policy.plan import Plan
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.proof import record_statement
from helm_sentry.receipt.receipt import SCHEMA, decision_statement, run_statement, segment_statement
from helm_sentry.receipt.report import SEGMENTS, State
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import create_run, read_run
from helm_sentry.receipt.verify import verify_run

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs/receipt-format.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
COMMON = {"type", "seq", "time", "prev", "hash"}
KEY = SigningKey(bytes(range(32)))
RUN = "20261121-071503-ab12cd"
POLICY = """schema: helm-sentry/policy/v1
name: notes
allow: [{id: notes, file: {do: [read], paths: [/srv/notes/**]}}]
"""


def table(after: str) -> set[str]:
    """The members in the first column of the first table after a heading or a table's own first line."""
    rows = DOCUMENT[DOCUMENT.index(f"\n{after}") :].partition("\n|---|---|\n")[2].partition("\n\n")[0]
    return {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The directory of the run that the document shows."""
    directory = str(tmp_path_factory.mktemp("example"))
    facts = record.start(
        run=RUN,
        version="0.1.0",
        argv=["cat", "/srv/notes/a", "/etc/shadow"],
        user="agent:agent",
        host="example",
        features=["kernel-6.1", "landlock-3", "listener", "ptrace"],
        degraded=[],
        digests={},
    )
    plan = Plan("seccomp", {"file.read": ("supervisor (seccomp)", "landlock")}, (), (), ())
    digests = create_run(directory, facts, load(POLICY, "notes.yaml").canonical(), plan.canonical(), KEY.public)
    ticks = itertools.count(1_700_000_000_000_000_000, 1_000_000)
    log = AuditLog(directory, RUN, clock=lambda: next(ticks))
    log.append({**facts, **digests})
    signer = Signer(directory, KEY)
    allowed = decision_line(
        41,
        "openat",
        [Operation(Kind.FILE_READ, path="/srv/notes/a")],
        Decision(Verdict.ALLOW, Reason.RULE, "notes"),
        "fd",
        object="fe00:1a",
    )
    log.append_decision(allowed, Verdict.ALLOW)
    asked = [Operation(Kind.FILE_READ, path="/etc/shadow")]
    log.append(record.decision(41, "openat", asked, Decision(Verdict.DENY, Reason.DEFAULT), "errno", errno="EACCES"))
    signer.notify()
    log.append(record.end(log.counts, exit_status=1))
    signer.seal(log.totals)
    log.close()
    return Path(directory)


def test_the_example_is_what_the_code_writes(example):
    written = {name: data.decode() for name, data in contents(example).items()}
    assert {name: BLOCKS.get(name) for name in written} == written


def test_the_example_verifies(example):
    report = verify_run(read_run(str(example)), [KEY.public])
    assert (report.state, report.records, report.receipts, report.trusted) == (State.SEALED, 4, 1, True)


RECORDS = {
    "start": record.start(
        run="", version="", argv=[], user="", host="", features=[], degraded=[],
        digests={"key": "", "run_digest": "", "policy_digest": "", "plan_digest": ""}, variables={"tmp": "/t"}, parent="r", durable=True,
    ),
    "decision": record.decision(
        1, "connect", [Operation(Kind.NET_CONNECT, address="::1", port=1, protocol="tcp", hosts=("h",), own=True)],
        Decision(Verdict.ALLOW, Reason.RULE, "r"), "value",
    ) | record.decision(
        1, "rename", [Operation(Kind.EXEC, path="/a", argv=("a",)), Operation(Kind.EXEC, path="/b")],
        Decision(Verdict.DENY, Reason.DEFAULT), "errno", errno="EIO", object="1:1", detail="d", epoch=1,
    ),
    "outcome": record.outcome(1, "EIO"),
    "exec": record.executed(1, "/a", "1:1", ["a"]),
    "traffic": record.traffic(
        1, Operation(Kind.NET_CONNECT, address="::1", port=1, protocol="tcp"), 1, 1, exact=True, unsent=1
    ),
    "notice": record.notice("a", "b"),
    "process": record.forked(1, 1) | record.exited(1, 0),
    "witness": record.witnessed({}, {}, final=True),
    "gap": record.gap("a", "b"),
    "policy": record.policy_change("applied", 1, "a", "b", {}),
    "approval": record.approval(1, 1, "once", "a", "b"),
    "end": record.end({}, exit_status=0) | record.end({}, signal="SIGHUP"),
}  # fmt: skip


class TestNothingIsLeftOut:
    def test_record_types(self):
        assert set(RECORDS) == record.TYPES

    def test_what_every_record_has(self):
        assert table("## Records") == COMMON | {"degraded"}
        assert (
            set(json.loads(record.link(record.outcome(1, "EIO") | {"seq": 0, "time": 0, "prev": ""})))
            - {
                "of",
                "errno",
            }
            == COMMON
        )

    @pytest.mark.parametrize("name", RECORDS)
    def test_members_of_a_record(self, name):
        fields = RECORDS[name]
        assert fields["type"] == name
        rows = "\n".join(re.findall(rf"^\| {name} \|([^|]+)\|", DOCUMENT, re.MULTILINE))
        named = set(re.findall(r"`(\w+)`", rows)) or table(f"### {name}")
        assert named == set(fields) - COMMON

    def test_members_of_the_statements(self):
        totals = record.Totals(records=0, counts={}, head="", size=0)
        assert table("| run statement |") == set(run_statement({}, {}, totals, b""))
        assert table("| decision statement |") == set(decision_statement({}, {"seq": 0, "hash": ""}))
        first = {"seq": 0, "hash": ""}
        assert table("| record statement |") == set(record_statement(lambda a, b: b"", {}, first, b"", 1, KEY.public))
        assert table("| segment statement |") == set(segment_statement("", 0, ""))
        assert f"Format version: `{SCHEMA}`" in DOCUMENT

    def test_files(self):
        listed = re.findall(r"^\| `([\w./]+)` \|", DOCUMENT.partition("## Canonical JSON")[0], re.MULTILINE)
        assert set(listed) == set(BLOCKS) | {SEGMENTS}

    def test_reasons_verdicts_and_actions(self):
        assert table("| reason |") == set(Reason)
        (verdicts,) = re.findall(r"^Verdicts: (.*?)\. Reasons:", DOCUMENT, re.MULTILINE)
        assert re.findall(r"`(\w+)`", verdicts) == list(Verdict)
        (actions,) = re.findall(r"^Actions: (.*?)\n\n", DOCUMENT, re.MULTILINE | re.DOTALL)
        assert re.findall(r"`(\w+)`", actions) == list(get_args(record.ActionName))

    def test_notices(self):
        package = Path(helm_sentry.__file__).parent
        calls = (re.findall(r'\bnotice\(\s*"([\w-]+)"', path.read_text()) for path in package.rglob("*.py"))
        section = "".join(re.findall(r"^\| notice \| `code` \|.*", DOCUMENT, re.MULTILINE))
        assert set(re.findall(r"`([\w-]+)`: ", section)) == {
            *(code for codes in calls for code in codes),
            *(LOOKED_UP, UNSTATED, TOO_MANY),
        }
