"""The board fits a terminal, flags what is wrong, and says the same as the JSON."""

import json

import pytest

from helm_sentry import state
from helm_sentry.demo import board, evidence, findings
from helm_sentry.demo.performance import Outcome
from tests.unit.demo.runs import ACTS, CLEAN, RUN, Script, lines

pytestmark = pytest.mark.usefixtures("state_home")


def outcome(script: Script | None = None, status: int = 0, **changes: str) -> Outcome:
    reported = lines()
    for name, errno in changes.items():
        reported[name.replace("_", "-")]["errno"] = errno
    found = evidence.collect((script or Script()).write(), state.key_directory())
    return Outcome(tuple(findings.judge(ACTS, reported, found, CLEAN)), found, status)


def text(shown: Outcome, home: str = "/nowhere") -> list[str]:
    return [line for line, _ in (*board.rows(shown.findings), *board.closing(shown, home))]


@pytest.mark.parametrize(
    "script", [Script(), Script(sealed=False), Script(unlogged={act.id for act in ACTS}, left_behind=False)]
)
def test_it_fits_80_columns(script: Script) -> None:
    shown = text(outcome(script, read_key="ECONNREFUSED", write_passwd=""))
    assert [line for line in shown if len(line) > 80 and not line.startswith("log ")] == []


def test_a_good_run() -> None:
    shown = outcome()
    table = text(shown)
    assert shown.good
    assert table[-1] == "Everything was as expected."
    assert "held by   broker, floor" in table
    (key,) = [line for line in table if line.startswith("read key")]
    assert key.split() == ["read", "key", "..mo-x1/home/.ssh/id", "denied", "EACCES", "4", "default", "yes"]
    assert all(good for _, good in (*board.rows(shown.findings), *board.closing(shown, "/")))


def test_a_bad_act_is_flagged() -> None:
    shown = outcome(read_key="ENOENT")
    table = text(shown)
    assert [line for line in table if line.endswith(" <")] == [line for line in table if line.startswith("read key")]
    assert table[-1] == "NOT as expected: read key."
    assert not shown.good


def test_a_run_that_does_not_verify_is_never_good() -> None:
    shown = outcome(Script(sealed=False))
    assert not shown.good
    assert any(line.startswith("verified  NO: ") for line in text(shown))
    assert not any("sealed;" in line for line in text(shown))


def test_a_failed_agent_is_never_good() -> None:
    shown = outcome(status=1)
    assert not shown.good
    assert text(shown)[-1] == "NOT as expected: the run ended with status 1 or does not verify."


def test_the_home_directory_is_shortened() -> None:
    shown = outcome()
    home = shown.evidence.directory.partition("/helm-sentry/")[0]
    assert f"log       ~/helm-sentry/runs/{RUN}" in text(shown, home)
    assert f"log       {shown.evidence.directory}" in text(shown, home[:-1])


def test_the_json_says_the_same() -> None:
    shown = outcome(read_key="ENOENT")
    fields = json.loads(json.dumps(shown.fields()))
    assert (fields["good"], fields["run"], fields["fault"]) == (False, RUN, "")
    assert fields["verification"]["state"] == "sealed"
    bad = [act for act in fields["acts"] if not act["good"]]
    assert [(act["id"], act["agent"], act["record"], act["receipt"]) for act in bad] == [
        ("read-key", "ENOENT", 4, "own")
    ]
