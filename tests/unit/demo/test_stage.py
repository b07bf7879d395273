"""The stage and its policy: what the scenario expects is what the policy decides."""

import dataclasses
import os
from pathlib import Path

import pytest

from helm_sentry.decision import Decision
from helm_sentry.demo import scenario, stage
from helm_sentry.demo.scenario import Act, Expected
from helm_sentry.demo.server import ForbiddenServer
from helm_sentry.demo.stage import Stage
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load_file
from helm_sentry.policy.model import Policy

MODEL_PORT = 4242
RUN = {"workspace": "/w", "home": "/h", "tmp": "/t", "user": "u", "program": "/usr/bin/python3.11"}


@pytest.fixture
def built(tmp_path: Path) -> Stage:
    return stage.build(str(tmp_path))


@pytest.fixture
def acts(built: Stage) -> dict[str, Act]:
    with ForbiddenServer() as forbidden:
        asked = scenario.script(built.props(forbidden))
    return {act.id: act for act in (scenario.asking(f"127.0.0.1:{MODEL_PORT}"), *asked)}


def load(built: Stage) -> Policy:
    return load_file(built.write_policy(MODEL_PORT), RUN)


def decision(policy: Policy, act: Act) -> Decision:
    assert act.kind is not None
    operation = Operation(act.kind, path=act.target)
    if act.kind is Kind.NET_CONNECT:
        address, _, port = act.target.rpartition(":")
        operation = Operation(act.kind, address=address, port=int(port), protocol="tcp")
    return decide(compile_policy(policy), operation)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ask", "model"),
        ("read-data", "approved-data"),
        ("write-report", "workspace"),
        ("read-key", "ssh-keys"),
        ("write-passwd", "passwd"),
        ("run-program", "default"),
        ("call-out", "default"),
    ],
)
def test_the_policy_decides_each_act_as_expected(built: Stage, acts: dict[str, Act], name: str, rule: str) -> None:
    decided = decision(load(built), acts[name])
    assert decided.allowed == (acts[name].expected is Expected.ALLOWED)
    assert decided.rule == rule


def test_every_act_that_is_decided_at_once_stands_above(acts: dict[str, Act]) -> None:
    assert [act.id for act in acts.values() if act.kind is None] == ["leave-daemon"]
    assert len(acts) == 8


def test_the_daemon_may_write_its_trace(built: Stage) -> None:
    policy = compile_policy(load(built))
    assert decide(policy, Operation(Kind.FILE_CREATE, path=built.trace)).allowed
    assert decide(policy, Operation(Kind.FILE_READ, path=built.fifo)).allowed


def test_the_model_may_be_reached_at_no_other_port(built: Stage) -> None:
    policy = compile_policy(load(built))
    connect = Operation(Kind.NET_CONNECT, address="127.0.0.1", port=MODEL_PORT, protocol="tcp")
    assert decide(policy, connect).allowed
    assert not decide(policy, dataclasses.replace(connect, port=MODEL_PORT + 1)).allowed
    assert not decide(policy, dataclasses.replace(connect, address="127.0.0.2")).allowed


def test_the_shipped_policy_is_one_by_itself() -> None:
    policy = load_file(os.path.join(os.path.dirname(stage.__file__), "policy.yaml"), RUN)
    assert policy.name == "demo"


def test_a_directory_with_pattern_characters_stands_for_itself(tmp_path: Path) -> None:
    odd = tmp_path / "a*[b]${x} \"'\\"
    odd.mkdir()
    (tmp_path / "aXb").mkdir()
    built = stage.build(str(odd))
    policy = compile_policy(load(built))
    data = Operation(Kind.FILE_READ, path=f"{odd}/data/customers.csv")
    assert decide(policy, data).allowed
    assert not decide(policy, dataclasses.replace(data, path=f"{tmp_path}/aXb/data/customers.csv")).allowed


def test_the_key_is_thrown_away_and_private(built: Stage, acts: dict[str, Act]) -> None:
    key = acts["read-key"].target
    assert key.startswith(built.directory)
    assert os.stat(key).st_mode & 0o077 == 0


def test_the_passwd_file_is_opened_but_not_changed(acts: dict[str, Act]) -> None:
    assert acts["write-passwd"].target == os.path.realpath("/etc/passwd")
    assert acts["write-passwd"].arguments["text"] == ""


def test_without_curl_a_copy_of_a_program_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    os.symlink("/bin/true", tools / "true")
    monkeypatch.setenv("PATH", str(tools))
    (tmp_path / "stage").mkdir()
    program = stage.build(str(tmp_path / "stage")).program
    assert program.startswith(str(tmp_path / "stage"))
    assert os.access(program, os.X_OK)


def test_the_fifo_tells_whether_somebody_waits(built: Stage) -> None:
    assert built.daemon_gone()
    waiting = os.open(built.fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not built.daemon_gone()
        assert os.read(waiting, 1) == b"!"
    finally:
        os.close(waiting)
    assert built.daemon_gone()
