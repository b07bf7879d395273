"""`helm-sentry run` as a user meets it: transparent to the agent, closed to everything else."""

import signal

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel


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
