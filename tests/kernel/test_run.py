"""`helm-sentry run` as a user meets it: transparent to the agent, closed to everything else."""

import signal

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.every_tier]


def test_output_input_and_status_are_the_agents(sandbox: Sandbox) -> None:
    result = sandbox.run(["bash", "-c", "cat; echo err >&2; exit 7"], stdin="through\n")
    assert (result.status, result.stdout) == (7, "through\n")
    assert "err" in result.stderr


def test_a_run_verifies(sandbox: Sandbox) -> None:
    result = sandbox.run([PYTHON, "-c", "open('x', 'w').write('hello')"])
    assert result.status == 0, result.stderr
    assert (sandbox.workspace / "x").read_text() == "hello"
    checked = sandbox.verify(result.directory)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1], ids=lambda n: n.name)
def test_death_by_signal_is_repeated(sandbox: Sandbox, number: signal.Signals) -> None:
    result = sandbox.run([PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(number)})"])
    assert result.status == -number
    assert result.records[-1]["signal"] == number.name


def test_no_rule_no_access(sandbox: Sandbox) -> None:
    secret = sandbox.root / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    command = ["cat", str(secret)]
    assert sandbox.native(command).stdout == "s3cret"
    result = sandbox.run(command)
    assert result.status == 1
    assert "s3cret" not in result.stdout
    assert "Permission denied" in result.stderr
    assert f"paths: [{secret}]" in result.stderr
    (denied,) = result.denials("file.read")
    assert (denied["target"], denied["rule"], denied["errno"]) == (str(secret), "default", "EACCES")


def test_a_missing_program_is_127(sandbox: Sandbox) -> None:
    result = sandbox.run(["/nonexistent/program"])
    assert result.status == 127
    assert "there is no such program" in result.stderr


def test_a_program_without_a_rule_does_not_start(sandbox: Sandbox) -> None:
    policy = sandbox.policy("allow:\n  - id: nothing\n    file: {do: [read], paths: [/etc/hostname]}\n")
    result = sandbox.run(["/bin/true"], policy)
    assert result.status == 126
    assert result.denials("exec")[0]["target"].endswith("/true")


def test_the_agent_starts_in_the_workspace(sandbox: Sandbox) -> None:
    place = sandbox.root / "workspace" / "inner"
    place.mkdir()
    result = sandbox.run(["pwd"], options=["--workspace", str(place)])
    assert result.stdout.strip() == str(place)


@pytest.mark.parametrize("name", ["b[r]acket", "back\\slash", "st*r", "with space"])
def test_programs_run_in_a_workspace_with_an_odd_name(sandbox: Sandbox, name: str) -> None:
    place = sandbox.workspace / name
    place.mkdir()
    (place / "tool").write_text("#!/bin/sh\necho ran\n")
    (place / "tool").chmod(0o755)
    result = sandbox.run(["./tool"], options=["--workspace", str(place)])
    assert (result.status, result.stdout) == (0, "ran\n"), result.stderr


def test_what_the_next_run_would_execute_cannot_be_changed(sandbox: Sandbox) -> None:
    part = sandbox.workspace / "part.yaml"
    part.write_text("schema: helm-sentry/policy/v1\nname: part\nextends: [default]\n")
    policy = sandbox.workspace / "whole.yaml"
    policy.write_text("schema: helm-sentry/policy/v1\nname: whole\nextends: [./part.yaml]\n")
    for target in (part, policy):
        result = sandbox.run(["sh", "-c", f"echo x >> {target.name}"], policy)
        assert result.status != 0
        assert result.denials("file.write")[0]["rule"] == "sentry/sources"
    assert sandbox.run(["sh", "-c", "echo x > default"]).status == 0


def test_names_with_a_star_are_not_blocked(sandbox: Sandbox) -> None:
    policy = sandbox.policy("block:\n  - id: no\n    connect: {hosts: ['*.example.com']}\n")
    result = sandbox.run(["true"], policy)
    assert result.status == 2
    assert "cannot be kept to" in result.stderr
