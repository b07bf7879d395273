"""The systemd units at work, in a guest whose process 1 is systemd: `guest.py --systemd -- .venv/bin/python tests/vm/units.py`.

Prints what it saw, a line each; ends with 0 if all of it is as promised. It changes the machine it runs on, so it runs
in a guest and nowhere else.
"""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALLED, UNITS = Path("/opt/helm-sentry"), Path("/run/systemd/system")
STATE = Path("/var/lib/helm-sentry")
WRAPPER = """#!/bin/sh
PYTHONPATH=/opt/helm-sentry PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -P -c \
'from helm_sentry.cli.main import main; main()' "$@"
"""
NEEDED = "grpc|google|protobuf|prometheus_client|click|yaml|_yaml|orjson|nacl|cffi|_cffi_backend|pycparser|cel_expr_python|typing_ext"
POLICY = "schema: helm-sentry/policy/v1\nname: {}\nextends: [default]\n"
COMMANDS = {
    "one": "/usr/bin/sleep 1000",
    "two": "/usr/bin/sleep 1001",
    "three": "/usr/bin/tail -f /dev/null /etc/shadow",
}
PATIENCE = 600.0


def main() -> int:
    if not os.environ.get("SENTRY_GUEST") or Path("/proc/1/comm").read_text() != "systemd\n":
        raise SystemExit("units.py: not in a guest with systemd")
    install()
    exposure()
    sockets()
    limited()
    agents = three_agents()
    restarted(agents)
    killed(agents)
    one_crashes(agents)
    reloaded()
    journal()
    print("units: all as promised")
    return 0


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if check and done.returncode:
        run("journalctl", "-n", "40", "--no-pager", check=False)
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{logs()}")
    return done.stdout


def logs() -> str:
    return subprocess.run(["journalctl", "-n", "60", "--no-pager"], text=True, capture_output=True, check=False).stdout


def sentry(*arguments: str) -> str:
    """Run a command as the daemon's user, who is whom it serves."""
    user = ("setpriv", "--reuid=helm-sentry", "--regid=helm-sentry", "--clear-groups")
    return run(*user, "env", "XDG_STATE_HOME=/var/lib", "HOME=/var/lib/helm-sentry", "helm-sentry", *arguments)


def runs() -> dict[str, Any]:
    return {about["run"]: about for about in map(json.loads, sentry("ps", "--json").splitlines())}


def served() -> set[str]:
    """Return the runs that have a control socket: to look costs nothing, unlike starting Python in a guest."""
    return {name for name in os.listdir(STATE / "control") if not name.startswith(".")}


def until(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not seen: {what}\n{logs()}")
        time.sleep(1)
    return found


def saw(what: str) -> None:
    print(f"units: {what}", flush=True)


def install() -> None:
    site = Path(sysconfig.get_path("purelib"))
    shutil.copytree(CHECKOUT / "helm_sentry", INSTALLED / "helm_sentry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CHECKOUT / "policies", INSTALLED / "policies")
    for place in site.iterdir():
        if re.match(NEEDED, place.name) and not place.name.startswith("grpc_tools"):
            copy = shutil.copytree if place.is_dir() else shutil.copy
            copy(place, INSTALLED / place.name)
    Path("/usr/bin/helm-sentry").write_text(WRAPPER)
    os.chmod("/usr/bin/helm-sentry", 0o755)
    package = INSTALLED / "helm_sentry/daemon/systemd"
    shutil.copy(package / "sysusers.conf", "/usr/lib/sysusers.d/helm-sentry.conf")
    shutil.copy(package / "tmpfiles.conf", "/usr/lib/tmpfiles.d/helm-sentry.conf")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/helm-sentry.conf")
    for unit in package.glob("helm-sentry*"):
        shutil.copy(unit, UNITS)
    slow = UNITS / "helm-sentry.service.d"  # as a guest without hardware acceleration is
    slow.mkdir()
    (slow / "slow.conf").write_text("[Service]\nTimeoutStartSec=600\n")
    os.makedirs("/etc/helm-sentry")
    for name, command in COMMANDS.items():
        Path(f"/etc/helm-sentry/{name}.conf").write_text(f"COMMAND={command}\n")
        Path(f"/etc/helm-sentry/{name}.yaml").write_text(POLICY.format(name))
    run("systemctl", "daemon-reload")
    saw(f"installed for {pwd.getpwnam('helm-sentry').pw_name}")


def exposure() -> None:
    for unit in ("helm-sentry.service", "helm-sentry@one.service"):
        said = run("systemd-analyze", "security", "--no-pager", unit, check=False).splitlines()[-1]
        level = float(re.search(r"([0-9.]+) [A-Z]", said)[1])
        saw(f"exposure of {unit}: {level}")
        assert level <= 2.5, said


def active(unit: str) -> str:
    return run("systemctl", "is-active", unit, check=False).strip()


def sockets() -> None:
    run("systemctl", "start", "helm-sentry.socket")
    assert active("helm-sentry.service") == "inactive"
    begun = sentry("run", "--detach", "--", "/usr/bin/sleep", "1002").strip()
    assert active("helm-sentry.service") == "active"
    until(lambda: (STATE / "control" / begun).exists(), "the run that a socket started the daemon for")
    cgroup = Path(f"/proc/{runs()[begun]['agent']}/cgroup").read_text().strip()
    assert cgroup.endswith(f"/helm-sentry.service/{begun}/supervisor"), cgroup
    assert "WatchdogUSec=30s" in run("systemctl", "show", "helm-sentry", "-p", "WatchdogUSec")
    saw(f"a socket started the daemon, which hosts a run in {cgroup.partition('::')[2]}")


def limited() -> None:
    """Each process keeps to the limit, all of them together do not: the kernel ends one of them."""
    policy = Path("/etc/helm-sentry/limited.yaml")
    policy.write_text(POLICY.format("limited") + "limits: {memory: 96MiB, processes: 32}\n")
    code = (
        "import os, signal, time\n"
        "for _ in range(3):\n"
        "    if not os.fork(): held = bytearray(50 << 20); signal.pause()\n"
        "signal.pause()\n"
    )
    begun = sentry("run", "--detach", "--policy", str(policy), "--", "/usr/bin/python3", "-IS", "-c", code).strip()
    about = runs().get(begun)
    lines = (STATE / "runs" / begun / "audit.jsonl").read_text().splitlines()
    notes = [line for line in lines if '"ALLOW"' not in line]
    assert about and "for all of the agent together" in "".join(notes), (notes, sentry("logs", begun))
    group = Path("/sys/fs/cgroup") / Path(f"/proc/{about['agent']}/cgroup").read_text().strip().partition("::/")[2]
    assert group.parts[-2:] == (begun, "agent"), group
    assert (group / "memory.max").read_text().strip() == str(96 << 20)
    assert (group / "pids.max").read_text().strip() == "32"
    until(lambda: "oom_kill 0" not in (group / "memory.events").read_text(), "a process too many")
    sentry("kill", begun)
    until(lambda: begun not in served(), "the end of the limited run")
    assert json.loads(sentry("inspect", begun))["state"] == "sealed"
    until(lambda: not group.parent.exists(), "the end of its group")
    saw("memory of a run's processes together is limited by its control group")


def three_agents() -> dict[str, str]:
    for name in COMMANDS:
        run("systemctl", "start", f"helm-sentry@{name}")
    until(lambda: len(served()) == 4, "three agents and the hosted run")
    shown = runs()
    found = {about["name"]: run for run, about in shown.items()}
    assert found.keys() == {*COMMANDS, "default"}
    uid = pwd.getpwnam("helm-sentry").pw_uid
    for about in shown.values():
        assert os.stat(f"/proc/{about['agent']}").st_uid in (uid, 0)
        assert "Seccomp:\t2" in Path(f"/proc/{about['agent']}/status").read_text()
    saw("three agents run, each under its own policy, beside the hosted one")
    return found


def restarted(agents: dict[str, str]) -> None:
    before = run("systemctl", "show", "helm-sentry", "-p", "MainPID")
    run("systemctl", "restart", "helm-sentry")
    assert run("systemctl", "show", "helm-sentry", "-p", "MainPID") != before
    until(lambda: served() == {agents[name] for name in COMMANDS}, "the three agents")
    hosted = json.loads(sentry("inspect", agents["default"]))["state"]
    assert hosted == "sealed", hosted
    saw("a restart of the daemon: three agents go on, the hosted run was ended and sealed")


def killed(agents: dict[str, str]) -> None:
    begun = sentry("run", "--detach", "--", "/usr/bin/sleep", "1003").strip()
    until(lambda: begun in served(), "another hosted run")
    main = run("systemctl", "show", "helm-sentry", "-p", "MainPID").strip().partition("=")[2]
    os.kill(int(main), 9)
    until(lambda: f"run {begun} ended without a seal" in logs(), "the report about what the dead daemon left")
    until(lambda: active("helm-sentry.service") == "active", "the next daemon")
    assert set(runs()) == {agents[name] for name in COMMANDS}
    assert json.loads(sentry("inspect", begun))["state"] == "ended without a seal"
    saw("a killed daemon is replaced: three agents go on, the hosted run was ended, and the next daemon says so")


def one_crashes(agents: dict[str, str]) -> None:
    shown = json.loads(sentry("inspect", agents["two"]))
    os.kill(shown["supervisor"], 9)
    until(lambda: not Path(f"/proc/{shown['agent']}").exists(), "the end of the crashed supervisor's agent")
    until(lambda: len(served() - {agents["two"]}) == 3, "a new run of the crashed agent")
    assert {agents["one"], agents["three"]} < set(runs())
    saw("a crashed supervisor ends its agent alone, and systemd starts that one anew")


def reloaded() -> None:
    run("systemctl", "reload", "helm-sentry@one")
    until(lambda: "the policy was read again: epoch 1" in logs(), "the policy read again")
    run("systemctl", "reload", "helm-sentry")
    until(lambda: "the list of callers was read again" in logs(), "the callers read again")
    saw("reload reads the policy again, and the daemon's callers")


def journal() -> None:
    found = run(
        "journalctl", "SENTRY_VERDICT=DENY", "SENTRY_TARGET=/etc/shadow", "--no-pager", "-o", "json", check=False
    )
    assert found, logs()
    entry = json.loads(found.splitlines()[0])
    saw(f"in the journal: {entry['MESSAGE']}")


if __name__ == "__main__":
    sys.exit(main())
