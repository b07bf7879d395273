"""`helm-sentry demo`, and its positive control: every act it forbids succeeds where nothing supervises the agent."""

import json
import os
import select
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.demo import evidence, findings, scenario, stage
from helm_sentry.demo.evidence import Evidence
from helm_sentry.demo.findings import Aftermath, Finding
from helm_sentry.demo.model_server import ModelServer
from helm_sentry.demo.scenario import Act, Expected
from helm_sentry.demo.server import ForbiddenServer
from helm_sentry.demo.stage import Stage
from tests.kernel.conftest import PYTHON, Result, Sandbox

pytestmark = pytest.mark.kernel
REFUSALS = ("EACCES", "EPERM")
DENIED = ("read-key", "write-passwd", "run-program", "call-out")
Lines = dict[str, dict[str, Any]]


@dataclass
class Theatre:
    """A stage with a stand-in for /etc/passwd that the agent may safely write, both servers, and ways to play."""

    sandbox: Sandbox
    stage: Stage
    model: ModelServer
    forbidden: ForbiddenServer
    acts: tuple[Act, ...]

    @property
    def command(self) -> list[str]:
        return [PYTHON, *self.stage.command(self.model.url)[1:]]

    def supervise(self, policy: str) -> tuple[Result, Lines]:
        result = self.sandbox.run(self.command, policy, options=("--workspace", self.stage.workspace))
        return result, report(result)

    def evidence(self, result: Result) -> Evidence:
        return evidence.collect(str(result.directory), str(self.sandbox.root / "state/helm-sentry/keys"))

    def judge(self, result: Result) -> dict[str, Finding]:
        after = Aftermath(
            daemon_gone=self.stage.daemon_gone(),
            trace_absent=not os.path.lexists(self.stage.trace),
            visits=self.forbidden.visits,
        )
        found = findings.judge(self.acts, report(result), self.evidence(result), after)
        return {one.act.id: one for one in found}


@pytest.fixture
def theatre(sandbox: Sandbox) -> Iterator[Theatre]:
    passwd, directory = sandbox.root / "passwd", sandbox.root / "stage"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\n")
    directory.mkdir()
    built = stage.build(str(directory), str(passwd))
    with ForbiddenServer() as forbidden:
        asked = scenario.script(built.props(forbidden))
        with ModelServer([act.turn for act in asked]) as model:
            built.write_policy(model.port)
            give(sandbox.uid, passwd, directory)
            yield Theatre(sandbox, built, model, forbidden, (scenario.asking(model.address), *asked))


def give(uid: int, *paths: Path) -> None:
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, uid, uid)


def report(result: Result) -> Lines:
    return {line["id"]: line for line in map(json.loads, result.stdout.splitlines())}


def wake(theatre: Theatre, pid: int) -> None:
    """Have the daemon do what it waits for, and wait for its end."""
    daemon = os.pidfd_open(pid)
    try:
        assert not theatre.stage.daemon_gone()
        assert select.select([daemon], [], [], 30)[0], "the daemon did not end"
    finally:
        os.close(daemon)


def test_every_forbidden_act_succeeds_natively_and_is_denied_under_the_policy(theatre: Theatre) -> None:
    native = theatre.sandbox.native(theatre.command)
    lines = report(native)
    assert native.status == 0, native.stderr
    assert {act.id: lines[act.id]["errno"] for act in theatre.acts} == {act.id: "" for act in theatre.acts}
    assert lines["read-key"]["result"].startswith("-----BEGIN OPENSSH PRIVATE KEY")
    assert lines["run-program"]["result"]["status"] == 0
    assert lines["call-out"]["result"] == {"status": 200, "body": "welcome\n"}
    wake(theatre, lines["leave-daemon"]["result"]["pid"])
    assert Path(theatre.stage.trace).read_text() == "still here\n"
    os.unlink(theatre.stage.trace)
    visits = theatre.forbidden.visits

    result, lines = theatre.supervise(f"{theatre.stage.directory}/policy.yaml")
    assert result.status == 0, result.stderr
    assert [lines[name]["errno"] in REFUSALS for name in DENIED] == [True] * len(DENIED), lines
    assert "PRIVATE KEY" not in result.stdout
    assert theatre.stage.daemon_gone()
    assert not os.path.exists(theatre.stage.trace)
    assert theatre.forbidden.visits == visits == 1


def test_every_denial_is_in_the_log_and_has_a_receipt_that_verifies(theatre: Theatre) -> None:
    result, lines = theatre.supervise(f"{theatre.stage.directory}/policy.yaml")
    denials = {(record["ops"][0], record["target"]): record for record in result.denials()}
    pid = lines["leave-daemon"]["result"]["pid"]
    outlived = denials.pop(("process.outlive", f"process {pid}"))
    assert (outlived["reason"], outlived["action"]) == ("RUN_ENDED", "kill")
    expected = {(str(act.kind), act.target): act.id for act in theatre.acts if act.expected is Expected.DENIED}
    assert {key: record["rule"] for key, record in denials.items()} == {
        key: {"read-key": "ssh-keys", "write-passwd": "passwd"}.get(name, "default") for key, name in expected.items()
    }
    assert {record["errno"] for record in denials.values()} == {lines[name]["errno"] for name in DENIED}
    found = theatre.evidence(result)
    assert found.receipts == {record["seq"] for record in [outlived, *denials.values()]}
    assert found.report is not None, found.fault
    assert all(one.good for one in theatre.judge(result).values())


def test_an_act_that_the_policy_lets_through_makes_the_board_bad(theatre: Theatre) -> None:
    path = Path(theatre.stage.directory, "policy.yaml")
    text = path.read_text()
    opened = text.replace("block:\n  - id: ssh-keys", "  - id: ssh-keys", 1).replace("{do: [all]", "{do: [read]", 1)
    path.write_text(opened.replace("  - id: passwd", "block:\n  - id: passwd", 1))
    result, lines = theatre.supervise(str(path))
    assert lines["read-key"]["errno"] == "", result.stderr
    found = theatre.judge(result)
    assert [name for name, one in found.items() if not one.good] == ["read-key"]
    assert (found["read-key"].agent, found["read-key"].rule) == ("ok", "ssh-keys")


@dataclass(frozen=True)
class Demo:
    """One call of `helm-sentry demo` that has ended."""

    status: int
    stdout: str
    stderr: str


def play(sandbox: Sandbox, *options: str) -> Demo:
    temporary = sandbox.root / "tmp"
    temporary.mkdir(exist_ok=True)
    give(sandbox.uid, temporary)
    argv = ["env", f"TMPDIR={temporary}", *sandbox.command, "demo", *options]
    process = sandbox.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=150)
    finally:
        process.kill()
    assert list(temporary.iterdir()) == []
    return Demo(process.returncode, out, err)


def test_the_demo_prints_its_board(sandbox: Sandbox) -> None:
    shown = play(sandbox)
    assert shown.status == 0, shown.stdout + shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[-1] == "Everything was as expected."
    assert [line for line in lines if len(line) > 80 and not line.startswith("log ")] == []
    assert "\x1b" not in shown.stdout
    assert sum(line.count(" denied ") for line in lines) == len(DENIED)
    assert any(line.startswith("held by   supervisor (seccomp)") for line in lines)
    assert shown.stderr.count("agent: EACCES") + shown.stderr.count("agent: EPERM") == len(DENIED)
    (directory,) = sandbox.runs()
    assert directory.name in shown.stdout
    checked = sandbox.verify(directory)
    assert checked.returncode == 0, checked.stderr


def test_the_demo_prints_the_same_as_json(sandbox: Sandbox) -> None:
    shown = play(sandbox, "--json")
    assert shown.status == 0, shown.stdout + shown.stderr
    outcome = json.loads(shown.stdout)
    assert outcome["good"] is True
    assert [act["id"] for act in outcome["acts"] if act["expected"] == "denied"] == list(DENIED)
    denied = [act for act in outcome["acts"] if act["expected"] == "denied"]
    assert all(act["agent"] in REFUSALS and act["receipt"] == "own" for act in denied)
    assert outcome["acts"][4]["target"] == os.path.realpath("/etc/passwd")
    assert outcome["verification"]["receipts"] == len(DENIED) + 1  # and the daemon
    assert (outcome["verification"]["state"], outcome["verification"]["trusted"]) == ("sealed", True)
    assert sandbox.runs() == [Path(outcome["directory"])]


def test_a_run_that_cannot_start_is_not_a_success(sandbox: Sandbox) -> None:
    (sandbox.root / "state" / "helm-sentry").write_text("in the way of the state directory\n")
    shown = play(sandbox)
    assert shown.status == 125, shown.stdout + shown.stderr
    assert shown.stdout == ""
    assert "helm-sentry: the run failed; the reason stands above" in shown.stderr
