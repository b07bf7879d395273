"""Somebody sets the wall clock in the middle of a run. Played in a guest alone (`make vm-test`): it is the machine's clock.

No namespace covers CLOCK_REALTIME. What the run does must not depend on it: limits, budgets, approvals, checkpoints.
"""

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox, installation, sandbox
from tests.kernel.test_approvals import Agent, name, waiting
from tests.kernel.test_faults import Talk, finish, records, talk

__all__ = ["installation", "sandbox"]

pytestmark = pytest.mark.parametrize("sandbox", ["root"], indirect=True)  # the clock is the same for everybody

DAY = 86400
CLOCK_TOLERANCE = 60  # seconds: how near to the jump its record must say it was
PATIENCE = 60.0
POLICY = """extends: [default]
allow:
  - id: few
    file: {do: [create], paths: ["${workspace}/few/**"]}
    limit: {count: 3, per: 1m}
"""
ASKING = """extends: [default]
contextual:
  - id: ask
    file: {do: [create, write], paths: ["${workspace}/asked/**"]}
    when: "false"
    otherwise: escalate
"""


@pytest.fixture(autouse=True)
def own_clock() -> Iterator[None]:
    """Give the clock back as it was, with the time that has passed."""
    if not Path("/run/guest/main").exists():
        pytest.fail("sets the machine's clock: for a guest alone")
    wall, steady = time.time(), time.monotonic()
    yield
    time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - steady)


def set_clock(seconds: int) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def jumps(log: list[dict]) -> list[int]:
    """Return by how much the log says that the clock was set, in seconds."""
    words = [record["detail"].split() for record in log if record.get("code") == "clock-set"]
    return [round(float(word[-2])) * (1 if "forwards" in word else -1) for word in words]


def wait_for(what: str, seen: object, agent: Talk, sandbox: Sandbox) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen(records(sandbox)):  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        assert agent("going_on()") == "True"


def asked(agent: Agent) -> dict:
    """Wait until the agent's call waits for a person. Whoever lists questions takes the processor from the agent."""
    deadline = time.monotonic() + 2 * PATIENCE
    while not any('"ESCALATE"' in log.read_text() for log in agent.sandbox.root.glob("state/helm-sentry/runs/*/audit.jsonl")
                  if log.parent not in agent.before):  # fmt: skip
        assert time.monotonic() < deadline, agent.process.poll()
        select.select([], [], [], 0.1)
    (question,) = agent.questions()
    return question


def test_budgets_checkpoints_and_the_log(sandbox: Sandbox) -> None:
    (sandbox.workspace / "few").mkdir()
    (sandbox.workspace / "few").chmod(0o777)
    with talk(sandbox, sandbox.policy(POLICY)) as agent:
        made = "name(lambda: open('few/%d', 'x').close())"
        assert [agent(made % at) for at in range(4)] == ["None", "None", "None", "EACCES"]
        (run,) = sandbox.runs()
        checkpoints = [(run / "checkpoints").stat().st_size]
        for way, expected in ((DAY, [DAY]), (-2 * DAY, [DAY, -2 * DAY])):
            set_clock(way)
            assert agent(made % 9) == "EACCES", "a minute of the budget is a minute"
            assert agent("going_on()") == "True"
            wait_for("the jump is in the log", lambda log: jumps(log) == expected, agent, sandbox)  # noqa: B023
            assert agent(f"name(os.mkdir, 'new{len(expected)}')") == "None"
            deadline = time.monotonic() + PATIENCE
            while (run / "checkpoints").stat().st_size <= checkpoints[-1]:
                assert time.monotonic() < deadline, "checkpoints go on"
                agent("going_on()")
            checkpoints.append((run / "checkpoints").stat().st_size)
        log = finish(sandbox, agent)  # verifies the run
    assert [record["seq"] for record in log] == list(range(len(log)))
    times = [record["time"] / 1e6 for record in log]
    leaps = [
        later - earlier for earlier, later in zip(times, times[1:], strict=False) if abs(later - earlier) > DAY / 2
    ]
    assert [round(leap / DAY) for leap in leaps] == [1, -2]
    assert [abs(said - leap) < CLOCK_TOLERANCE for said, leap in zip(jumps(log), leaps, strict=True)] == [True, True]


@pytest.mark.parametrize("way", [365 * DAY, -365 * DAY])
def test_the_wall_time_of_a_run(sandbox: Sandbox, way: int) -> None:
    limit = 15
    with talk(sandbox, sandbox.policy(f"extends: [default]\nlimits: {{wall_time: {limit}s}}\n")) as agent:
        began = time.monotonic()
        set_clock(way)
        assert agent("going_on()") == "True"
        agent.process.wait(PATIENCE)
        took = time.monotonic() - began
    assert limit / 2 < took < limit + 10
    assert jumps(records(sandbox)) == [way]
    assert [record for record in records(sandbox) if record.get("code") == "wall-time"]


def test_what_waits_for_a_person(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.kernel.test_approvals.PATIENCE", 2 * PATIENCE)  # a guest is slow
    (sandbox.workspace / "asked").mkdir()
    (sandbox.workspace / "asked").chmod(0o777)
    command = ["sh", "-c", "echo one > asked/one; echo $?"]
    agent = Agent(sandbox, command, sandbox.policy(ASKING), ("--approve-within", "100"))
    question = asked(agent)
    set_clock(365 * DAY)
    assert waiting(sandbox), "no time has passed"
    assert agent.approvals("approve", name(question)).returncode == 0
    out, err = agent.process.communicate(timeout=PATIENCE)
    assert out == "0\n", err
    set_clock(-365 * DAY)
    before = time.monotonic()
    agent = Agent(sandbox, command, sandbox.policy(ASKING), ("--approve-within", "20"))
    asked(agent)
    set_clock(-DAY)
    out, err = agent.process.communicate(timeout=PATIENCE)
    assert out != "0\n", err
    assert time.monotonic() - before < PATIENCE
