"""Agents come and go under one daemon: nothing is left behind, and no log has a gap.

`HELM_SENTRY_TEST_CHURN=300 HELM_SENTRY_TEST_AGENTS=20` is the long form; figures are printed.
"""

import os
import random
import time
from pathlib import Path

import pytest

from helm_sentry.audit.follow import records
from helm_sentry.rpc import sentry_pb2 as pb
from tests.kernel.daemons import ONCE, READER, Agent, Daemon, until
from tests.kernel.test_live_policy import policy_for

pytestmark = pytest.mark.kernel

SECONDS = float(os.environ.get("HELM_SENTRY_TEST_CHURN", "4"))
AGENTS = int(os.environ.get("HELM_SENTRY_TEST_AGENTS", "4"))


def resident(pid: int) -> int:
    """KiB that a process has for itself and shares in part, by its proportional set size."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[str]:
    """State of each child of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(fields[0])
    return found


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


class Churn:
    """A changing set of agents that are kept busy."""

    def __init__(self, daemon: Daemon, target: Path) -> None:
        self.daemon, self.target = daemon, target
        self.policy = policy_for(daemon.sandbox, target.name)
        self.rng, self.live, self.ended = random.Random(5), list[Agent](), list[Agent]()

    def begin(self) -> None:
        self.live.append(self.daemon.agent(self.policy, READER))

    def end_one(self) -> None:
        """End one agent in one of the ways they end."""
        agent = self.live.pop(self.rng.randrange(len(self.live)))
        how = self.rng.choice(("finish", "kill", "caller"))
        if how == "kill":
            self.daemon.stub.Kill(pb.KillRequest(run=agent.run))
        elif how == "caller":
            agent.process.kill()
        agent.finish()
        self.daemon.agents.remove(agent)
        self.ended.append(agent)

    def work(self) -> None:
        for agent in self.live:
            assert agent.read(self.target) == self.target.name
            assert agent.read(Path("/etc/shadow")) == "Permission denied"


def require_no_gap(agent: Agent) -> None:
    """Require that each record of a log follows the one before it, and that the last one is its end."""
    found = [fields for _, fields in records(str(agent.directory), from_start=True, goes_on=lambda: False)]
    assert [fields["seq"] for fields in found] == list(range(len(found)))
    assert found[-1]["type"] == "end"
    assert not [fields for fields in found if fields["type"] == "gap"]


@ONCE
def test_nothing_is_left_behind(daemon, sandbox):
    target = sandbox.root / "first"
    target.write_text(target.name)
    target.chmod(0o644)
    churn, pid = Churn(daemon, target), daemon.process.pid

    def settled() -> bool:
        shown = daemon.stub.List(pb.ListRequest()).runs
        return {each.id for each in shown} == {agent.run for agent in churn.live} and "Z" not in children(pid)

    while len(churn.live) < AGENTS:
        churn.begin()
    for _ in range(3):  # what is imported and cached once is there
        churn.end_one()
        churn.begin()
    until(settled)
    before = descriptors(pid), threads(pid), resident(pid)
    deadline, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        churn.work()
        churn.end_one()
        churn.begin()
        rounds += 1
    until(settled)
    until(lambda: descriptors(pid) <= before[0] and threads(pid) <= before[1] + 2, f"{descriptors(pid)} of {before}")
    after = descriptors(pid), threads(pid), resident(pid)
    abouts = [daemon.shown(agent.run) for agent in churn.live]
    supervisors = sorted(resident(about["supervisor"]) for about in abouts)
    agents = sorted(resident(about["agent"]) for about in abouts)
    print(
        f"{AGENTS} agents, {rounds} ended and begun in {SECONDS:g} s; the daemon's descriptors, threads, KiB: "
        f"{before} then {after}; each supervisor {supervisors[0]} to {supervisors[-1]} KiB, agent {agents[0]} to {agents[-1]}"
    )
    assert after[2] < before[2] * 1.25 + 4096
    while churn.live:
        churn.end_one()
    until(settled)
    until(lambda: children(pid) == [])  # a caller hears of the end before the kernel has taken its supervisor apart
    for agent in churn.ended:
        until(lambda agent=agent: (agent.directory / "receipts/run.json").exists())
        require_no_gap(agent)
    assert os.listdir(daemon.state / "control") == []
    for agent in random.Random(1).sample(churn.ended, min(len(churn.ended), 12)) + churn.ended[-2:]:
        assert sandbox.verify(agent.directory).returncode == 0, agent.run
