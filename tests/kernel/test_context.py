"""Rules that depend on more than the object: conditions, limits, programs, arguments. Each refusal has its twin."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Result, Sandbox

pytestmark = pytest.mark.kernel

PROGRAMS = "extends: [base, shell, python]\n"
WORKSPACE = "  - {id: work, file: {do: [all], paths: ['${workspace}/**']}}\n"


def decisions(result: Result, rule: str) -> list[dict]:
    return [record for record in result.records if record.get("rule") == rule]


def spare(sandbox: Sandbox, name: str, text: str = "secret\n") -> Path:
    path = sandbox.workspace / name
    path.write_text(text)
    os.chown(path, sandbox.uid, -1)
    return path


class TestConditions:
    def run(
        self,
        sandbox: Sandbox,
        role: str,
        when: str = 'agent.role == "tester"',
        otherwise: str = "deny",
        options: tuple[str, ...] = (),
    ) -> Result:
        spare(sandbox, "plan")
        text = (
            f"{PROGRAMS}agent: {{role: {role}}}\nallow:\n{WORKSPACE}contextual:\n"
            "  - {id: only-testers, file: {do: [read], paths: ['${workspace}/plan']}, "
            f"when: '{when}', otherwise: {otherwise}}}\n"
        )
        return sandbox.run(["cat", "plan"], sandbox.policy(text), options=options)

    def test_a_true_condition_allows(self, sandbox: Sandbox) -> None:
        result = self.run(sandbox, "tester")
        assert (result.status, result.stdout) == (0, "secret\n")
        assert [record["reason"] for record in decisions(result, "only-testers")] == ["RULE"]

    def test_a_false_condition_denies_what_another_rule_allows(self, sandbox: Sandbox) -> None:
        result = self.run(sandbox, "visitor")
        assert result.status == 1
        (record,) = decisions(result, "only-testers")
        assert (record["verdict"], record["reason"], record["action"]) == ("DENY", "CONDITION", "errno")

    def test_to_escalate_is_to_refuse_when_nobody_answers(self, sandbox: Sandbox) -> None:
        result = self.run(sandbox, "visitor", otherwise="escalate", options=("--approve-within", "0.2"))
        assert (result.status, result.stdout) == (1, "")
        assert {record["verdict"] for record in decisions(result, "only-testers")} <= {"ESCALATE", "DENY"}
        assert "asks for openat, by rule only-testers: file.read" in result.stderr

    def test_an_error_denies_with_its_reason(self, sandbox: Sandbox) -> None:
        result = self.run(sandbox, "tester", when='op.argv[3] == "x"')
        assert result.status == 1
        (record,) = decisions(result, "only-testers")
        assert (record["verdict"], record["reason"]) == ("DENY", "CONDITION_ERROR")
        assert "index" in record["detail"]

    def test_repeated_opens_are_judged_each_time(self, sandbox: Sandbox) -> None:
        """Also by the compiled receiver, which must not repeat what a condition decided."""
        spare(sandbox, "plan")
        policy = sandbox.policy(
            PROGRAMS
            + "allow:\n"
            + WORKSPACE
            + "contextual:\n  - {id: few, file: {do: [read], paths: ['${workspace}/plan']}, "
            "when: 'run.counts.file.create < 2'}\n"
        )
        program = (
            "def look():\n"
            "    try: return open('plan').read().strip()\n"
            "    except OSError: return 'no'\n"
            "print(*[look() for _ in range(5)])\n"
            "open('a', 'w'); open('b', 'w')\n"
            "print(*[look() for _ in range(5)])\n"
        )
        result = sandbox.run(["python3", "-c", program], policy)
        assert result.stdout == "secret secret secret secret secret\nno no no no no\n"


def test_a_limit_is_used_up(sandbox: Sandbox) -> None:
    policy = sandbox.policy(
        PROGRAMS
        + "allow:\n"
        + WORKSPACE
        + "  - {id: three, file: {do: [create], paths: ['${workspace}/n*']}, limit: {count: 3}}\n"
    )
    program = (
        "for n in 1 2 3 4 5; do echo x 2>/dev/null > n$n && echo made $n; done; echo y > other && echo other; true"
    )
    assert sandbox.native(["sh", "-c", program]).stdout.count("made") == 5
    for path in sandbox.workspace.glob("n*"):
        path.unlink()
    result = sandbox.run(["sh", "-c", program], policy)
    assert result.stdout == "made 1\nmade 2\nmade 3\nother\n"
    assert [record["reason"] for record in decisions(result, "three")] == ["RULE"] * 3 + ["BUDGET"] * 2


class TestPrograms:
    @pytest.fixture
    def policy(self, sandbox: Sandbox) -> str:
        spare(sandbox, "secret")
        env = os.path.realpath(shutil.which("env") or "")
        return sandbox.policy(
            PROGRAMS + "allow:\n  - {id: work, file: {do: [stat, list], paths: ['${workspace}/**']}}\n"
            "  - {id: fifo, file: {do: [read, write], paths: ['${workspace}/fifo']}}\n"
            f"  - {{id: env-only, programs: [{env}], file: {{do: [read], paths: ['${{workspace}}/secret']}}}}\n"
        )

    def test_the_program_and_what_it_starts(self, sandbox: Sandbox, policy: str) -> None:
        assert sandbox.run(["env", "sh", "-c", "cat secret; true"], policy).stdout == "secret\n"

    def test_nothing_else(self, sandbox: Sandbox, policy: str) -> None:
        result = sandbox.run(["sh", "-c", "cat secret; true"], policy)
        assert result.stdout == ""
        assert "no rule allows it" in result.stderr

    def test_not_the_child_of_a_shell_that_becomes_the_program_later(self, sandbox: Sandbox, policy: str) -> None:
        """The child is forked first; when it reads, its parent runs the program, and /proc would say so."""
        os.mkfifo(sandbox.workspace / "fifo", 0o666)
        os.chmod(sandbox.workspace / "fifo", 0o666)
        later = "(read word < fifo; cat secret; echo tried $word) & exec env sh -c 'echo now > fifo; cat secret; wait; true'"
        assert sandbox.native(["sh", "-c", later]).stdout.count("secret") == 2
        result = sandbox.run(["sh", "-c", later + "; true"], policy)
        assert result.stdout.count("secret\n") == 1  # of the program itself

    def test_a_fork_keeps_what_it_comes_from(self, sandbox: Sandbox, policy: str) -> None:
        assert sandbox.run(["env", "sh", "-c", "(read x < secret; echo $x); true"], policy).stdout == "secret\n"

    def test_its_mark_cannot_be_set(self, sandbox: Sandbox, policy: str) -> None:
        program = (
            "import resource\n"
            "def lower(what, limits):\n"
            "    try: resource.setrlimit(what, limits); return 'set'\n"
            "    except (OSError, ValueError) as error: return type(error).__name__\n"
            "print(lower(10, (5, 5)), lower(resource.RLIMIT_CORE, (0, 0)))\n"
        )
        assert sandbox.native(["python3", "-c", program]).stdout == "set set\n"
        result = sandbox.run(["python3", "-c", program], policy)
        assert result.stdout in ("PermissionError set\n", "ValueError set\n")
        assert [record["verdict"] for record in decisions(result, "sentry/descent")] == ["DENY"]


class TestArguments:
    @pytest.fixture
    def policy(self, sandbox: Sandbox) -> str:
        spare(sandbox, "a", "a\n")
        spare(sandbox, "b", "b\n")
        cat = os.path.realpath(shutil.which("cat") or "")
        shell = os.path.realpath(shutil.which("sh") or "")
        return sandbox.policy(
            "extends: [base]\nallow:\n  - {id: work, file: {do: [read, list], paths: ['${workspace}/**']}}\n"
            f"  - {{id: shell, exec: {{paths: [{shell}]}}}}\n"
            f"  - {{id: cat, exec: {{paths: [{cat}], argv: [cat, a]}}}}\n"
            "block:\n  - {id: no-preload, exec: {paths: ['/**'], environment: {LD_PRELOAD: '?*'}}}\n"
        )

    def test_the_stated_arguments(self, sandbox: Sandbox, policy: str) -> None:
        result = sandbox.run(["sh", "-c", "cat a; cat b; cat a b; true"], policy)
        assert result.stdout == "a\n"
        assert {tuple(record["argv"]) for record in result.denials("exec")} == {("cat", "b"), ("cat", "a", "b")}

    def test_the_stated_environment(self, sandbox: Sandbox, policy: str) -> None:
        result = sandbox.run(["sh", "-c", "LD_PRELOAD= cat a; LD_PRELOAD=x.so cat a; true"], policy)
        assert result.stdout == "a\n"
        assert {record["reason"] for record in decisions(result, "no-preload")} == {"BLOCK"}

    def test_arguments_that_change_while_they_are_judged(self, sandbox: Sandbox, policy: str, victims: Path) -> None:
        victim, cat = victims / "race_argv", os.path.realpath(shutil.which("cat") or "")
        rounds = [str(victim), cat, os.environ.get("HELM_SENTRY_RACES", "100")]
        assert {"a", "b"} <= set(sandbox.native(rounds).stdout.split())
        text = (
            Path(policy)
            .read_text()
            .replace("  - {id: shell,", f"  - {{id: race, exec: {{paths: [{victim}]}}}}\n  - {{id: shell,")
        )
        Path(policy).write_text(text)
        result = sandbox.run(rounds, policy)
        assert set(result.stdout.split()) == {"a"}
        reasons = {record["reason"] for record in result.denials("exec")}
        assert reasons and reasons <= {"DEFAULT", "EXEC_MISMATCH"}


class TestRenames:
    POLICY = (
        PROGRAMS
        + "allow:\n"
        + WORKSPACE
        + "block:\n  - {id: keys, file: {do: [read], paths: ['${workspace}/**/.env']}}\n"
    )

    def test_a_file_may_be_renamed_beneath_a_wild_block(self, sandbox: Sandbox) -> None:
        spare(sandbox, "draft")
        result = sandbox.run(["sh", "-c", "mv draft final && cat final"], sandbox.policy(self.POLICY))
        assert (result.status, result.stdout) == (0, "secret\n")

    def test_a_directory_that_may_hold_what_is_blocked_may_not(self, sandbox: Sandbox) -> None:
        inside = sandbox.workspace / "d"
        inside.mkdir()
        os.chown(inside, sandbox.uid, -1)
        (inside / ".env").write_text("key")
        result = sandbox.run(["sh", "-c", "mv d e"], sandbox.policy(self.POLICY))
        assert result.status != 0
        assert (inside / ".env").exists()
        assert decisions(result, "keys")

    def test_what_is_blocked_itself_may_not(self, sandbox: Sandbox) -> None:
        spare(sandbox, ".env")
        assert sandbox.run(["sh", "-c", "mv .env env"], sandbox.policy(self.POLICY)).status != 0


def test_the_log_of_such_a_run_verifies(sandbox: Sandbox) -> None:
    result = TestConditions().run(sandbox, "visitor")
    assert result.directory is not None
    assert (
        json.loads((result.directory / "policy.json").read_text())["contextual"][0]["when"] == 'agent.role == "tester"'
    )
    with sandbox.popen([*sandbox.command, "verify", str(result.directory)], stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) == 0
