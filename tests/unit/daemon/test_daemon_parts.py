"""The daemon's small parts: systemd's protocols and units, control groups, the journal; and what `run` does without it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import helm_sentry.daemon
from helm_sentry.daemon import service_manager
from helm_sentry.daemon.cgroup import Groups
from helm_sentry.daemon.journal import encode, entry

UNITS = Path(helm_sentry.daemon.__file__).parent / "systemd"
NEEDED_BY_THE_DAEMON_ALONE = ("grpc", "google.protobuf", "prometheus_client", "grpc_health", "grpc_reflection")


@pytest.mark.parametrize("unit", ["helm-sentry.service", "helm-sentry@.service"])
def test_a_unit_exposes_little(unit, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    shutil.copy(UNITS / unit, tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"./{unit}"]
    said = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False).stdout.splitlines()[-1]
    assert float(re.search(r": ([0-9.]+) ", said)[1]) <= 2.5, said


def test_units_say_the_same_about_hardening():
    def hardening(unit: str) -> set[str]:
        lines = (UNITS / unit).read_text().splitlines()
        begin, end = lines.index("User=helm-sentry"), lines.index("SystemCallErrorNumber=EPERM")
        return set(lines[begin : end + 1])

    assert hardening("helm-sentry.service") == hardening("helm-sentry@.service")


def test_the_service_manager_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service_manager.tell(READY=1, STATUS="serving")
        assert manager.recv(99) == b"READY=1\nSTATUS=serving"
    monkeypatch.delenv("NOTIFY_SOCKET")
    service_manager.tell(READY=1)


def test_the_watchdog_is_fed_twice_as_often_as_it_wants(monkeypatch):
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert service_manager.patience() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert service_manager.patience() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert service_manager.patience() is None


def test_groups_of_runs_that_are_over_are_swept(tmp_path):
    """What a killed daemon has left; a directory stands in for the control group, which a test may not be given."""
    groups = Groups()
    groups._root = str(tmp_path)
    over, live = "20261121-071503-ab12cd", "20261121-071503-000000"
    for name in (over, live, "daemon"):
        (tmp_path / name / "agent").mkdir(parents=True)
    groups.sweep([live])
    assert sorted(os.listdir(tmp_path)) == [live, "daemon"]


INHERITS = """
import os, sys
from helm_sentry.daemon import service_manager
os.environ["LISTEN_PID"] = str(os.getpid())
found = service_manager.inherited()
print(sorted(found), [os.get_inheritable(each.fileno()) for each in found.values()], os.environ.get("LISTEN_FDS"))
"""


def test_sockets_are_known_by_their_names(tmp_path):
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for listener, name in zip(listeners, ("grpc", "runs"), strict=True):
        listener.bind(str(tmp_path / name))
        listener.listen()
    command = f"exec {sys.executable} -c '{INHERITS}' 3<&{listeners[0].fileno()} 4<&{listeners[1].fileno()}"
    passed = [listener.fileno() for listener in listeners]
    environment = os.environ | {"LISTEN_FDS": "2"}
    command = command.replace("'", '"', 0)
    done = subprocess.run(["bash", "-c", command], pass_fds=passed, env=environment, text=True, capture_output=True)
    assert done.stdout == "['grpc', 'runs'] [False, False] None\n", done.stderr
    for listener in listeners:
        listener.close()


def test_without_a_service_manager_nothing_is_inherited(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "3")
    assert service_manager.inherited() == {}


def test_a_denial_becomes_fields_of_the_journal():
    fields = {"type": "decision", "seq": 7, "verdict": "DENY", "rule": "default", "reason": "DEFAULT", "time": 0}
    fields |= {"target": "/etc/shadow", "syscall": "openat", "ops": ["file.read"], "action": "errno", "tid": 1}
    made = entry("20260101-000000-abcdef", fields)
    assert (made["SENTRY_VERDICT"], made["SENTRY_TARGET"], made["PRIORITY"]) == ("DENY", "/etc/shadow", "4")
    assert "/etc/shadow" in made["MESSAGE"]


def test_a_value_of_several_lines_cannot_add_a_field():
    assert encode({"MESSAGE": "a\nPRIORITY=0", "B": "c"}) == b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nB=c\n"


def test_a_run_loads_nothing_of_the_daemon():
    code = f"""
import sys
import helm_sentry.cli.run, helm_sentry.control.handover, helm_sentry.session, helm_sentry.cli.ps, helm_sentry.cli.inspect
loaded = [name for name in {NEEDED_BY_THE_DAEMON_ALONE!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_daemon_without_its_packages_says_what_to_install():
    code = "import sys; sys.modules['grpc'] = None; from helm_sentry.cli.main import main; main(['daemon'])"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)
    assert (done.returncode, "helm-sentry[daemon]" in done.stderr) == (125, True), done.stderr
