"""Real programs under the shipped packs: what they print, how they end and what they leave is as without us.

Each runs twice in the same directory, first natively, as the control, then supervised by the default policy.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, Result, Sandbox

pytestmark = pytest.mark.kernel

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Program:
    """One program of `programs/`.

    Attributes:
        command: what to run.
        files: what it needs in its directory.
        status: how it ends, negative for a signal.
        ends: a line that it prints near its end, so that an early end is noticed even if both runs have it.
        varies: names in its directory that no two runs agree on.
    """

    command: tuple[str, ...]
    files: tuple[str, ...]
    status: int
    ends: str
    varies: str = r"(?!)"

    def __str__(self) -> str:
        return Path(self.files[0]).stem


ALL = (
    Program((PYTHON, "python_network.py"), ("python_network.py",), 0, "names ('127.0.0.1', 80)"),
    Program((PYTHON, "python_storage.py"), ("python_storage.py",), 0, "archive True"),
    Program((PYTHON, "python_workers.py"), ("python_workers.py",), 0, "cpus True True"),
    Program((PYTHON, "python_processes.py"), ("python_processes.py",), 5, "epoll 1"),
    Program(("bash", "venv.sh", PYTHON), ("venv.sh", "make_wheel.py"), 0, "no index: 1"),
    Program(("bash", "git.sh"), ("git.sh",), 0, "status 128", varies=r"\.git/(index|objects/pack)"),
    Program(("node", "node_main.mjs"), ("node_main.mjs", "node_child.mjs"), 4, "signal"),
    Program(("bash", "shell.sh"), ("shell.sh",), -signal.SIGTERM, "login shell"),
    Program(("bash", "build.sh"), ("build.sh",), 2, "static"),
    Program(("bash", "tools.sh"), ("tools.sh",), 3, "done"),
)

# What ordinary programs are refused and do not miss.
POINTLESS = {
    ("file.stat", r"/proc/[0-9]+"),  # `ps` sees which processes there are, not whose they are
    ("unix.connect", "/run/nscd(/socket)?"),  # the C library asks it for names before it reads /etc
    ("process.outlive", r"process [0-9]+"),  # helpers of multiprocessing end a moment after the program
}


@pytest.mark.parametrize("program", ALL, ids=str)
def test_a_program_runs_as_without_us(sandbox: Sandbox, program: Program) -> None:
    native, native_tree = run_in_fresh_directory(sandbox, program, sandbox.native)
    assert native.status == program.status, native.stderr
    assert program.ends in native.stdout.splitlines(), native.stdout
    result, tree = run_in_fresh_directory(sandbox, program, sandbox.run)
    assert result.stdout == native.stdout, result.stderr
    assert result.status == native.status
    assert tree == native_tree
    assert "denied:" not in result.stderr
    assert unexpected_denials(result) == []


def run_in_fresh_directory(
    sandbox: Sandbox, program: Program, run: Callable[..., Result]
) -> tuple[Result, dict[str, tuple[object, ...]]]:
    shutil.rmtree(sandbox.workspace)
    sandbox.workspace.mkdir()
    for name in program.files:
        shutil.copy(PROGRAMS / name, sandbox.workspace / name)
    for path in (sandbox.workspace, *sandbox.workspace.iterdir()):
        os.chown(path, sandbox.uid, sandbox.uid)
    result = run(program.command)
    return result, tree_of(sandbox.workspace, re.compile(program.varies))


def tree_of(root: Path, varies: re.Pattern[str]) -> dict[str, tuple[object, ...]]:
    """Return what every file beneath a directory is, whose it is, and who may do what with it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if not varies.search(name):
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            found[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_nlink, link)
    return found


def unexpected_denials(result: Result) -> list[tuple[str, str]]:
    found = {(kind, str(record["target"])) for record in result.denials() for kind in record["ops"]}
    return sorted(
        (kind, target)
        for kind, target in found
        if not any(kind == known and re.fullmatch(pattern, target) for known, pattern in POINTLESS)
    )


# Whoever starts a child learns that it runs before the supervisor has let go of it.
KILLED_AT_ONCE = """
import subprocess
for _ in range(200):
    child = subprocess.Popen(["sleep", "100"])
    child.kill()
    assert child.wait(timeout=20) == -9
print("all reaped")
"""


def test_a_child_killed_as_it_starts_is_reaped(sandbox: Sandbox) -> None:
    command = [PYTHON, "-c", KILLED_AT_ONCE]
    assert sandbox.native(command).stdout == "all reaped\n"
    result = sandbox.run(command)
    assert (result.status, result.stdout) == (0, "all reaped\n"), result.stderr


def closed_to_the_packs(sandbox: Sandbox, elsewhere: Path) -> dict[str, list[str]]:
    """What everybody on a machine can read and an agent cannot: each command, by the path it is about."""
    start_up = sandbox.root / "home" / ".bashrc"
    start_up.write_text("export TOKEN=secret\n")
    note = elsewhere / "note"
    note.write_text("of another run\n")
    return {
        str(start_up): ["cat", str(start_up)],
        str(note): ["cat", str(note)],
        "/tmp": ["ls", "/tmp"],
        f"/proc/{os.getpid()}/stat": ["cat", f"/proc/{os.getpid()}/stat"],
        f"/proc/{os.getpid()}/cmdline": ["cat", f"/proc/{os.getpid()}/cmdline"],
    }


def test_what_the_packs_keep_closed(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory(prefix="helm-sentry-") as elsewhere:
        os.chmod(elsewhere, 0o755)
        for target, command in closed_to_the_packs(sandbox, Path(elsewhere)).items():
            assert sandbox.native(command).status == 0
            result = sandbox.run(command)
            assert (result.status != 0, result.stdout) == (True, ""), target
            assert target in {record["target"] for record in result.denials()}
            assert f"{target}: no rule allows it" in result.stderr


SERVER = """
allow:
  - id: site
    file: {{do: [read, list], paths: ['${{workspace}}/**']}}
  - id: port
    bind: {{addresses: [127.0.0.1], ports: [{port}]}}
extends: [base, python]
"""
CLIENT = """
allow:
  - id: site
    connect: {{addresses: [127.0.0.1], ports: [{port}]}}
extends: [base, python]
"""
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode(), end='')"


def test_a_server_in_one_run_and_a_client_in_another(sandbox: Sandbox) -> None:
    (sandbox.workspace / "page").write_text("served\n")
    port = free_port()
    fetch = [PYTHON, "-c", FETCH, f"http://127.0.0.1:{port}/page"]
    serve = [PYTHON, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    server = sandbox.popen(
        sandbox.argv(serve, sandbox.policy(SERVER.format(port=port), "server")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        assert f"port {port}" in server.stdout.readline()
        native = sandbox.native(fetch)
        assert (native.status, native.stdout) == (0, "served\n")
        client = sandbox.run(fetch, sandbox.policy(CLIENT.format(port=port), "client"))
        assert (client.status, client.stdout) == (0, "served\n"), client.stderr
        stranger = sandbox.run(fetch, sandbox.policy("extends: [base, python]\n", "stranger"))
    finally:
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
    assert stranger.status == 1
    assert "Permission denied" in stranger.stderr
    (denied,) = stranger.denials("net.connect")
    assert (denied["target"], denied["rule"], denied["errno"]) == (f"127.0.0.1:{port}", "default", "EACCES")
    assert server.returncode == 0, "http.server ends an interrupt in order"
    assert said.count("GET /page") == 2, "one natively, one from the run that may"


def test_a_server_without_a_rule_does_not_listen(sandbox: Sandbox) -> None:
    port = free_port()
    command = [PYTHON, "-c", f"import socket; socket.create_server(('127.0.0.1', {port})); print('listening')"]
    assert sandbox.native(command).stdout == "listening\n"
    result = sandbox.run(command, sandbox.policy("extends: [base, python]\n"))
    assert (result.status, result.stdout) == (1, "")
    assert [record["target"] for record in result.denials("net.bind")] == [f"127.0.0.1:{port}"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
