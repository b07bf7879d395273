"""`run --tier kernel` where the kernel takes programs at its hooks; in a guest, by `make vm-test`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif("SENTRY_GUEST" not in os.environ, reason="for a guest: see `make vm-test`")

SENTRY = Path(sys.executable).with_name("helm-sentry")
POLICY = """schema: helm-sentry/policy/v1
name: tier
allow:
  - {id: look, file: {do: [stat], paths: ["/**"]}}
  - {id: system, file: {do: [read, list], paths: ["/usr/**", "/etc/**", "/lib/**", "/lib64/**"]}}
  - {id: own, file: {do: [all], paths: ["${workspace}/**"]}}
  - {id: python, exec: {paths: ["/usr/bin/python3*"]}}
block:
  - {id: shadow, file: {do: [read], paths: ["/etc/shadow"]}}
"""
NOT_IN_DEBIAN = {"kernel_x32"}  # what its kernels are built without
PINS, GROUPS = Path("/sys/fs/bpf/helm-sentry"), Path("/sys/fs/cgroup/helm-sentry")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "workspace").mkdir()
    return tmp_path


def start(place: Path, program: str) -> subprocess.Popen[str]:
    (place / "workspace/agent.py").write_text(program)
    options = ["--tier", "kernel", "--policy", place / "policy.yaml", "--workspace", place / "workspace"]
    return subprocess.Popen(
        [SENTRY, "run", *options, "--", "/usr/bin/python3", "-S", place / "workspace/agent.py"],
        env={**os.environ, "XDG_STATE_HOME": str(place / "state")},
        stdout=subprocess.PIPE,
        text=True,
    )


def records(place: Path) -> Iterator[dict[str, Any]]:
    """Yield what is in the log of the last run."""
    *_, log = sorted((place / "state/helm-sentry/runs").glob("*/audit.jsonl"))
    yield from map(json.loads, log.read_text().splitlines())


AGENT = """
import os
for path in ("/etc/hostname", "/etc/shadow", "/root", "made"):
    try:
        print(path, len(open(path, "w" if path == "made" else "r").name))
    except OSError as error:
        print(path, error.errno)
"""

WAITING = """
import time
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def test_a_killed_supervisor_leaves_programs_that_the_next_run_takes_away(place: Path) -> None:
    """The next run is looked at too: a guest takes ten seconds to start one."""
    process = start(place, WAITING)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    (left,) = PINS.iterdir()
    (group,) = (path for path in GROUPS.iterdir() if path.is_dir())
    agents = (group / "cgroup.procs").read_text().split()
    assert len(agents) == 1
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while (group / "cgroup.procs").read_text().split():  # the guardian ends the agent
        assert time.monotonic() < deadline
    assert any(left.iterdir())  # had it not, the programs would hold it still
    next_one = start(place, AGENT)
    said, _ = next_one.communicate(timeout=200)
    assert (next_one.returncode, said) == (0, "/etc/hostname 13\n/etc/shadow 13\n/root 13\nmade 4\n")
    assert not left.exists()
    assert not group.exists()
    assert [path for path in GROUPS.iterdir() if path.is_dir()] == []
    the_kernel_has_read_and_blocked(place)


def the_kernel_has_read_and_blocked(place: Path) -> None:
    """It reads for the agent and blocks inside what is allowed; what has an effect stays with the broker."""
    found = {(record.get("target"), record.get("action"), record.get("rule")) for record in records(place)}
    assert ("/etc/hostname", "kernel", "system") in found
    assert ("/etc/shadow", "errno", "shadow") in found
    made = {record["action"] for record in records(place) if str(record.get("target")).endswith("/made")}
    assert made == {"value"}
    assert not any(record["type"] == "gap" for record in records(place))


def test_no_attack_gets_through(tmp_path: Path) -> None:
    """All of them in one run, with short races: starting a run takes a guest ten seconds."""
    done = subprocess.run(
        [SENTRY, "attack", "--tier", "kernel", "--one-run", "--seconds", "0.1", "--json"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = {attack["name"]: attack for attack in json.loads(done.stdout)["attacks"]}
    for name, attack in found.items():
        print(f"{name:<28} {attack['natively']:<13} {attack['result']} {attack['detail']}")
    assert {name: attack["detail"] for name, attack in found.items() if attack["result"] == "got through"} == {}
    assert {name for name, attack in found.items() if attack["natively"] != "succeeds"} <= NOT_IN_DEBIAN
    assert done.returncode == 0
