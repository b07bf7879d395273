"""The ptrace tier: what a tracer needs of the agent cannot be turned against it, and `run` takes it where it must.

What both tiers have in common is in the other modules: those marked `every_tier` run here as well, and all of them with
`HELM_SENTRY_TIER=ptrace` in the environment.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import CHECKOUT, PYTHON, Result, Sandbox

POLICY = """extends: [shell]
allow:
  - {id: workspace, file: {do: [read, list], paths: ["${workspace}/**"]}}
  - {id: victims, exec: {paths: ["/tmp/sentry-victims-*/**"]}}
"""
TRACED = ("--tier", "ptrace")
REFUSED = ["close", "dup2", "dup3", "dup", "fcntl", "ioctl", "shutdown", "recvmsg", "recv", "high-word"]


def attempt(sandbox: Sandbox, victims: Path, name: str, *, native: bool = True) -> Result:
    """Run one attempt of victims/traced.c, with and without the compiled receiver."""
    file = sandbox.workspace / "file"
    file.write_text("here")
    environment = {} if native else {"HELM_SENTRY_NATIVE": "off"}
    command = [str(victims / "traced"), name, str(file)]
    return sandbox.run(command, sandbox.policy(POLICY), options=TRACED, environment=environment)


def words(result: Result) -> dict[str, str]:
    assert result.status == 0, result.stderr
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


COMPILED = pytest.mark.parametrize("native", [True, False], ids=["compiled", "python"])


@COMPILED
def test_the_channel_is_as_one_that_is_not_open(sandbox: Sandbox, victims: Path, native: bool) -> None:
    found = words(attempt(sandbox, victims, "hidden", native=native))
    assert found == {"high": "1", "open": "ok"} | dict.fromkeys(REFUSED, "EBADF")


def test_a_program_that_closes_everything_can_open_again(sandbox: Sandbox, victims: Path) -> None:
    """close_range(2) around the channel, with its flags and with descriptors above it."""
    supervised = words(attempt(sandbox, victims, "ranges"))
    assert supervised == words(sandbox.native([str(victims / "traced"), "ranges", str(sandbox.workspace / "file")]))
    assert supervised["below"] == supervised["above"] == "EBADF"


@COMPILED
def test_a_full_table_is_the_callers_error(sandbox: Sandbox, victims: Path, native: bool) -> None:
    result = attempt(sandbox, victims, "table", native=native)
    assert result.stdout == "EMFILE after 29, the last was 31\nagain 31\n"
    assert [record["errno"] for record in result.records if record["type"] == "outcome"] == ["EMFILE"]


def test_a_child_that_hides_from_the_tracer_has_nothing(sandbox: Sandbox, victims: Path) -> None:
    """CLONE_UNTRACED: whoever is not traced makes no mediated call at all."""
    control = words(sandbox.native([str(victims / "traced"), "untraced", str(sandbox.workspace)]))
    assert control == {"child": "ok", "parent": "ok"}
    assert words(attempt(sandbox, victims, "untraced")) == {"child": "ENOSYS", "parent": "ok"}


@COMPILED
def test_nothing_is_lost_when_hundreds_fork_at_once(sandbox: Sandbox, victims: Path, native: bool) -> None:
    result = attempt(sandbox, victims, "forks", native=native)
    assert words(result) == {"failed": "0"}
    file = str(sandbox.workspace / "file")
    assert len([r for r in result.records if r["type"] == "decision" and r.get("target") == file]) == 400
    assert sandbox.verify(result.directory).returncode == 0


@COMPILED
def test_who_spoils_the_page_spoils_its_own(sandbox: Sandbox, victims: Path, native: bool) -> None:
    found = words(attempt(sandbox, victims, "spoilt", native=native))
    assert found == {"denied": "EACCES", "unmapped": "ENOMEM", "plain": "ok"}


def test_nobody_sees_its_processors_narrowed(sandbox: Sandbox, victims: Path) -> None:
    """A caller is held to the tracer's processor while it is served (docs/adr/0019); it keeps what it has and sets."""
    assert words(attempt(sandbox, victims, "widths")) == {"narrow": "0", "lost": "0", "back": "1"}


def test_a_filter_that_marks_calls_gets_nothing_by_it(sandbox: Sandbox, victims: Path) -> None:
    """The tracer lets some calls go on unasked, by what they are and not by what a filter says of them."""
    if sandbox.uid == 0:
        control = sandbox.native([str(victims / "traced"), "namespaced", "-"])
        assert words(control) == {"namespace": "ok"}
    assert words(attempt(sandbox, victims, "namespaced")) == {"namespace": "EPERM"}
    found = words(attempt(sandbox, victims, "marked"))
    assert found == {"filter": "ok", "namespace": "EPERM", "open": "ok", "shadow": "EACCES"}


def outer(sandbox: Sandbox, syscall: str, options: tuple[str, ...] = ()) -> Result:
    """Run under a filter with a listener of its own that lets the kernel carry out what it is notified of."""
    script = [sys.executable, str(CHECKOUT / "tests/kernel/outer_filter.py"), syscall]
    command = sandbox.argv(["/bin/true"], sandbox.policy(POLICY), options)
    before = set(sandbox.runs())
    process = sandbox.popen(
        [*script, *command],
        env=sandbox.environment() | {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=-3,
        stdout=-1,
        stderr=-1,
    )
    out, err = process.communicate(timeout=120)
    new = sorted(set(sandbox.runs()) - before)
    return Result(process.returncode, out, err, new[-1] if new else None)


def tier_of(result: Result) -> str:
    assert result.directory is not None, result.stderr
    return str(json.loads((result.directory / "plan.json").read_text())["tier"])


@pytest.mark.skipif("HELM_SENTRY_TIER" in os.environ, reason="asks what happens when nobody asks for a tier")
def test_run_takes_the_tier_that_can_be_had_and_says_so(sandbox: Sandbox) -> None:
    control = sandbox.run(["/bin/true"], sandbox.policy(POLICY))
    assert (control.status, tier_of(control), "traced" in control.stderr) == (0, "seccomp", False)
    result = outer(sandbox, "none")
    assert (result.status, tier_of(result)) == (0, "ptrace"), result.stderr
    said = [line for line in result.stderr.splitlines() if "traced" in line]
    assert said == ["helm-sentry: no seccomp listener can be had here: the agent is traced with ptrace instead"]
    refused = outer(sandbox, "none", ("--tier", "seccomp"))
    assert (refused.status, "no seccomp listener" in refused.stderr) == (125, True)


@pytest.mark.parametrize("syscall", ["mkdirat", "openat", "connect"])
def test_a_listener_that_is_asked_first_refuses_the_run(sandbox: Sandbox, syscall: str) -> None:
    """It outranks the tracer, who would not even see the call; the control is `none` above."""
    result = outer(sandbox, syscall, TRACED)
    assert result.status == 125
    assert "takes calls before ours" in result.stderr


def test_the_agent_dies_with_its_tracer(sandbox: Sandbox) -> None:
    script = sandbox.workspace / "tree.py"
    script.write_text(
        "import os, signal\nr, w = os.pipe()\nfor _ in range(3):\n    os.fork()\n"
        "os.close(r)\nprint(os.getpid(), flush=True)\nsignal.pause()\n"
    )
    process = sandbox.popen(sandbox.argv([PYTHON, str(script)], options=TRACED), stdout=-1, stderr=-3)
    assert process.stdout is not None
    agents = [int(process.stdout.readline()) for _ in range(8)]
    assert all(Path(f"/proc/{pid}").exists() for pid in agents)
    process.send_signal(signal.SIGKILL)
    assert process.stdout.read() == ""  # the last holder of the pipe's other end is gone
    process.wait()


def test_a_tracer_that_cannot_be_woken_ends_the_run(sandbox: Sandbox) -> None:
    script = sandbox.workspace / "waits.py"
    script.write_text("import signal\nprint('up', flush=True)\nsignal.pause()\n")
    process = sandbox.popen(sandbox.argv([PYTHON, str(script)], options=TRACED), stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (bell,) = [pid for pid in children if not Path(f"/proc/{pid}/task/{pid}/children").read_text()]
    os.kill(int(bell), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "wakes the tracer was killed" in said) == (125, True)


def test_no_witness_looks_at_a_traced_run(sandbox: Sandbox) -> None:
    result = sandbox.run(["/bin/true"], sandbox.policy(POLICY), options=TRACED)
    (notice,) = [record for record in result.records if record.get("code") == "no-witness"]
    assert "tracer" in notice["detail"]
    insists = sandbox.policy(POLICY + "on_witness_gap: deny\n", "insists")
    assert sandbox.run(["/bin/true"], insists, options=TRACED).status == 125
