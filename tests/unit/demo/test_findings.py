"""Every way in which a demo can go wrong is seen, and makes exactly the act concerned bad."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from helm_sentry import state
from helm_sentry.demo import evidence, findings
from helm_sentry.demo.evidence import Evidence
from helm_sentry.demo.findings import OWN, RUN, Finding
from helm_sentry.errors import SentryError
from tests.unit.demo.runs import ACTS, CLEAN, MARK, PID, Script, lines, receipts

pytestmark = pytest.mark.usefixtures("state_home")
DENIED = ["read-key", "write-passwd", "run-program", "call-out"]


def collect(directory: str) -> Evidence:
    return evidence.collect(directory, state.key_directory())


def judged(found: Evidence, **changes: Any) -> dict[str, Finding]:
    return {one.act.id: one for one in findings.judge(ACTS, changes.get("lines", lines()), found, CLEAN)}


def bad(found: dict[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if not finding.good]


def test_a_run_as_it_should_be() -> None:
    found = judged(collect(Script().write()))
    assert bad(found) == []
    assert [found[name].receipt for name in DENIED] == [OWN] * 4
    assert found["ask"].receipt == RUN
    assert found["leave-daemon"].target == f"process {PID}"
    assert (found["leave-daemon"].agent, found["leave-daemon"].rule) == ("ended", "sentry/run-ended")


@pytest.mark.parametrize("name", DENIED)
def test_an_act_that_was_allowed(name: str) -> None:
    changed = lines()
    changed[name]["errno"] = ""
    found = judged(collect(Script(allowed={name}).write()), lines=changed)
    assert bad(found) == [name]
    assert found[name].agent == "ok"


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("errno", ["", "ENOENT", "ECONNREFUSED"])
def test_a_denied_act_that_met_something_else_at_the_agent(name: str, errno: str) -> None:
    changed = lines()
    changed[name]["errno"] = errno
    assert bad(judged(collect(Script().write()), lines=changed)) == [name]


@pytest.mark.parametrize("act", [act.id for act in ACTS])
def test_an_act_the_agent_never_reported(act: str) -> None:
    changed = lines()
    del changed[act]
    found = judged(collect(Script().write()), lines=changed)
    assert bad(found) == [act]
    assert found[act].agent == "nothing"


@pytest.mark.parametrize("act", [act.id for act in ACTS if act.kind])
def test_an_act_that_is_not_in_the_log(act: str) -> None:
    found = judged(collect(Script(unlogged={act}).write()))
    assert bad(found) == [act]
    assert found[act].sequence == -1


def test_a_daemon_that_is_not_in_the_log() -> None:
    assert bad(judged(collect(Script(left_behind=False).write()))) == ["leave-daemon"]


@pytest.mark.parametrize(
    ("change", "act"),
    [
        ({"daemon_gone": False}, "leave-daemon"),
        ({"trace_absent": False}, "leave-daemon"),
        ({"visits": 1}, "call-out"),
    ],
)
def test_what_was_seen_after_the_run(change: dict[str, Any], act: str) -> None:
    after = dataclasses.replace(CLEAN, **change)
    found = findings.judge(ACTS, lines(), collect(Script().write()), after)
    assert [one.act.id for one in found if not one.good] == [act]


def test_a_run_that_was_not_sealed() -> None:
    found = collect(Script(sealed=False).write())
    assert found.report is None
    assert "without a seal" in found.fault
    assert set(bad(judged(found))) == {act.id for act in ACTS} - {*DENIED, "leave-daemon"}


def test_a_receipt_that_was_changed() -> None:
    directory = Script().write()
    path = Path(receipts(directory))
    first, *rest = path.read_bytes().splitlines(keepends=True)
    flipped = first.replace(b'"payload":"ey', b'"payload":"ez', 1)
    assert flipped != first
    path.write_bytes(b"".join([flipped, *rest]))
    found = collect(directory)
    assert found.report is None
    assert judged(found)["read-key"].receipt == ""
    assert judged(found)["write-passwd"].receipt == OWN


def test_a_receipt_for_another_record_counts_for_nothing() -> None:
    directory = Script().write()
    path = Path(receipts(directory))
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first * 2 + b"".join(rest[1:]))
    assert judged(collect(directory))["write-passwd"].receipt == ""


def test_a_record_that_was_changed_loses_its_receipt() -> None:
    directory = Script().write()
    path = Path(directory, "audit.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"verdict":"DENY"', b'"verdict":"DENI"'))
    found = collect(directory)
    assert found.receipts == frozenset()
    assert found.report is None


def test_a_key_that_is_not_this_machines() -> None:
    directory = Script().write()
    (key,) = Path(state.key_directory()).glob("*.pub")
    key.rename(key.with_name("another.pub"))
    with pytest.raises(SentryError, match=r"\.pub"):
        collect(directory)


def test_the_run_is_found_by_its_command_line() -> None:
    directory = Script().write()
    os.makedirs(os.path.join(os.path.dirname(directory), "20991231-235959-ffffff"))
    assert evidence.find_run(MARK) == directory
    with pytest.raises(SentryError, match="did not start"):
        evidence.find_run("/tmp/helm-sentry-demo-y")


def test_without_any_run_nothing_is_found() -> None:
    with pytest.raises(SentryError, match="did not start"):
        evidence.find_run(MARK)
