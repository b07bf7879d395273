"""What a person reads at a denial: once for each cause, and lines that really allow it."""

import re

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel


def test_the_suggested_lines_allow_it(sandbox: Sandbox) -> None:
    outside = sandbox.root / "outside.txt"
    outside.write_text("text")
    command = ["cat", str(outside)]
    first = sandbox.run(command)
    assert (first.status, first.stdout) == (1, "")
    lines = re.search(r"to allow it, add to the policy:\n((?:    .*\n)+)", first.stderr)
    assert lines is not None, first.stderr
    policy = sandbox.policy("extends: [default]\n" + re.sub(r"(?m)^    ", "", lines[1]))
    second = sandbox.run(command, policy)
    assert (second.status, second.stdout) == (0, "text"), second.stderr
    assert "denied:" not in second.stderr


def test_each_cause_is_told_once(sandbox: Sandbox) -> None:
    outside = sandbox.root / "outside.txt"
    outside.write_text("text")
    result = sandbox.run(["sh", "-c", f"for i in 1 2 3 4 5; do cat {outside}; done"])
    assert len(result.denials("file.read")) == 5
    assert result.stderr.count("denied: read") == 1


def test_a_block_rule_is_named_and_no_allow_rule_suggested(sandbox: Sandbox) -> None:
    policy = sandbox.policy(
        "extends: [default]\nblock:\n  - id: no-diary\n    file: {do: [read], paths: ['${workspace}/diary']}\n"
    )
    (sandbox.workspace / "diary").write_text("dear")
    result = sandbox.run(["cat", "diary"], policy)
    assert "refused by block rule `no-diary`" in result.stderr
    assert "to allow it" not in result.stderr


def test_a_name_cannot_steer_the_terminal(sandbox: Sandbox) -> None:
    program = "import os\ntry: os.open(b'/tmp/\\x1b[2Jx\\n\\xffhelm-sentry: all is well', os.O_RDONLY | os.O_CREAT)\nexcept OSError: pass"
    result = sandbox.run([PYTHON, "-c", program])
    assert "\x1b" not in result.stderr
    assert "\nhelm-sentry: all is well" not in result.stderr
    assert "denied: create" in result.stderr


def test_the_last_line_says_how_many_and_where(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"])
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"helm-sentry: [\d,]+ decisions, [\d,]+ denied; log: \S+", last)
    assert last.endswith(str(result.directory))


def test_quiet_says_nothing(sandbox: Sandbox) -> None:
    result = sandbox.run(["cat", "/etc/shadow"], options=["--quiet"])
    assert "helm-sentry" not in result.stderr


def test_bad_policies_are_refused_with_their_place(sandbox: Sandbox) -> None:
    policy = sandbox.policy("allow:\n  - id: x\n    file: {do: [raed], paths: [/x]}\n")
    result = sandbox.run(["true"], policy)
    assert result.status == 2
    assert f"{policy}:5:" in result.stderr
    assert "`read`" in result.stderr
