"""`helm-sentry attack`: every control succeeds, nothing gets through, as root and as an ordinary user.

`HELM_ATTACK_SECONDS` says how long each race lasts; `make attack` runs the long form and shows the scorecards.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.attack.catalogue import GROUPS, attacks
from tests.kernel.conftest import TIER, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SECONDS = os.environ.get("HELM_ATTACK_SECONDS", "0.25")
# What root can do natively, so that its control shows more than the ordinary user's.
OF_ROOT = {
    *(
        "kernel_administration",
        "kernel_chroot",
        "kernel_bpf",
        "kernel_terminal_input",
        "race_fuse",
        "supervisor_program",
    ),
    *("race_open_page_fault", "file_handle", "kernel_namespaces", "exec_privileges"),
}
# What a kernel may be built without.
OPTIONAL = {"kernel_x32", "kernel_int80", "kernel_io_uring", "file_lease", "file_watch_all", "net_families"}


def play(sandbox: Sandbox, *options: str, policy: str | Path = "default") -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command and return its status and the attacks by name."""
    argv = [*sandbox.command, "attack", *TIER, "--json", "--policy", str(policy), "--seconds", SECONDS, *options]
    process = sandbox.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=1200)
    assert out, err
    return process.returncode, {attack["name"]: attack for attack in json.loads(out)["attacks"]}


def show(found: dict[str, dict[str, Any]]) -> None:
    for name, attack in found.items():
        print(f"{name:<28} {attack['natively']:<13} {attack['result']} {attack['detail']}")


def test_nothing_gets_through(sandbox: Sandbox) -> None:
    if "kernel" in TIER and sandbox.uid:  # which is no tier of an ordinary user's
        with pytest.raises(AssertionError, match="the kernel tier needs root"):
            play(sandbox)
        return
    status, found = play(sandbox)
    show(found)
    assert set(found) == {attack.name for attack in attacks()}
    through = {name: attack["detail"] for name, attack in found.items() if attack["result"] == "got through"}
    assert through == {}
    natively = {name for name, attack in found.items() if attack["natively"] != "succeeds"}
    assert natively <= (OPTIONAL if sandbox.uid == 0 else OPTIONAL | OF_ROOT)
    assert {found[name]["natively"] for name in natively} <= {"not possible"}
    assert status == 0


def test_a_policy_that_grants_too_much_is_told_so(sandbox: Sandbox) -> None:
    """The other control: where a rule opens the decoys, the attacks get through, and the rule is named."""
    policy = sandbox.policy("extends: [default]\nallow:\n  - {id: everything, file: {do: [all], paths: ['/tmp/**']}}\n")
    status, found = play(sandbox, "--only", "file_symlink", "--only", "file_hardlink_blocked", policy=policy)
    assert status == 1
    assert {name: attack["result"] for name, attack in found.items() if name != "file_run"} == {
        "file_symlink": "got through",
        "file_hardlink_blocked": "stopped",
    }
    assert "`test/everything`" in found["file_symlink"]["advice"]


class TestCatalogue:
    """What every attack says about itself."""

    def test_there_are_enough_of_each_kind(self) -> None:
        found = attacks()
        assert len(found) >= 72
        assert {attack.group for attack in found} == set(GROUPS)

    @pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)
    def test_each_states_its_case(self, attack: Any) -> None:
        assert attack.attacks.endswith(".")
        for text in (attack.promise, attack.control, attack.advice):
            assert text
            assert not text.endswith(".")
