"""A run that may not begin leaves a sealed run that says so."""

import os
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox

pytestmark = pytest.mark.kernel


def refused(sandbox: Sandbox, policy: Path | str, *options: str) -> dict[str, object]:
    mark = sandbox.workspace / "mark"
    result = sandbox.run(["touch", "mark"], policy, options=options)
    assert result.status == 2
    assert not mark.exists()
    assert result.directory, result.stderr
    assert sandbox.verify(result.directory).returncode == 0
    (denied,) = result.denials("exec")
    assert str(denied["detail"]) in result.stderr
    return denied


def test_a_missing_policy(sandbox: Sandbox) -> None:
    assert refused(sandbox, "./missing.yaml")["reason"] == "NO_POLICY"


def test_a_policy_with_a_mistake(sandbox: Sandbox) -> None:
    denied = refused(sandbox, sandbox.policy("allow: [{id: x, fiel: {}}]\n"))
    assert denied["reason"] == "NO_POLICY"
    assert "fiel" in str(denied["detail"])


def test_an_old_policy(sandbox: Sandbox) -> None:
    policy = sandbox.policy("extends: [default]\n")
    os.utime(policy, (time.time() - 7200,) * 2)
    assert refused(sandbox, policy, "--max-policy-age", "1h")["reason"] == "STALE_POLICY"
    assert sandbox.run(["touch", "mark"], policy, options=["--max-policy-age", "3h"]).status == 0
    assert (sandbox.workspace / "mark").exists()


def test_a_part_that_is_old_makes_the_whole_old(sandbox: Sandbox) -> None:
    part = sandbox.policy("extends: [default]\n", "part")
    os.utime(part, (time.time() - 7200,) * 2)
    whole = sandbox.policy("extends: [./part.yaml]\n", "whole")
    assert refused(sandbox, whole, "--max-policy-age", "1h")["reason"] == "STALE_POLICY"


def test_an_age_that_is_none(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"], options=["--max-policy-age", "soon"])
    assert (result.status, result.directory) == (2, None)
    assert "write a whole number" in result.stderr
