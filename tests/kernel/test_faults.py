"""What fails in the supervisor is refused and recorded, and the agent's other threads go on."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel

AGENT = """
import errno, os, resource, socket, sys, threading
def name(act, *args):
    try:
        return repr(act(*args))
    except OSError as error:
        return errno.errorcode[error.errno]
looks = [0]
def look():
    while True:
        os.stat("place")
        looks[0] += 1
        os.read(turns, 1)
turns, more = os.pipe()
threading.Thread(target=look, daemon=True).start()
def going_on():
    before = looks[0]
    while looks[0] < before + 3:
        os.write(more, b"!")
    return True
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except SyntaxError:
        exec(line.replace(";;", "\\n"))
        print("done", flush=True)
"""


class Talk:
    """A supervised Python program that is told what to do, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, line: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@contextmanager
def talk(sandbox: Sandbox, policy: Any = "default", **limits: int) -> Iterator[Talk]:
    """Start the agent under a supervisor that has lower limits itself."""
    (sandbox.workspace / "place").write_text("")
    os.chown(sandbox.workspace / "place", sandbox.uid, sandbox.uid)
    prefix = ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), "--"] if limits else []
    argv = [*prefix, *sandbox.argv([PYTHON, "-c", AGENT], policy)]
    process = sandbox.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    conversation = Talk(process)
    try:
        assert conversation.hear() == "ready", process.communicate()[1]
        yield conversation
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def limit(sandbox: Sandbox, agent: Talk, name: str, soft: int | str) -> None:
    """Set a soft limit of the supervisor, as its own user may."""
    done = sandbox.native(["prlimit", "--pid", str(agent.process.pid), f"--{name}={soft}:"])
    assert done.status == 0, done.stderr


def records(sandbox: Sandbox) -> list[dict[str, Any]]:
    (run,) = sandbox.runs()
    return [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]


def finish(sandbox: Sandbox, agent: Talk) -> list[dict[str, Any]]:
    """Let the agent end; the run must verify."""
    out, err = agent.process.communicate("", timeout=60)
    assert agent.process.returncode == 0, err
    (run,) = sandbox.runs()
    checked = sandbox.verify(run)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return records(sandbox)


def test_the_agent_has_no_room_for_a_descriptor(sandbox: Sandbox) -> None:
    with talk(sandbox) as agent:
        assert agent("resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), 64))") == "None"
        assert agent("name(os.open, 'place', os.O_RDONLY)") == "EMFILE"
        assert agent("going_on()") == "True"
        assert agent("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))") == "None"
        assert agent("name(os.open, 'place', os.O_RDONLY)").isdigit()
        log = finish(sandbox, agent)
    (failed,) = [record for record in log if record["type"] == "outcome" and record["errno"] == "EMFILE"]
    opened = log[failed["of"]] if "of" in failed else log[failed["seq"] - 1]
    assert opened["verdict"] == "ALLOW"


def test_the_supervisor_has_no_descriptors_left(sandbox: Sandbox) -> None:
    os.mkfifo(sandbox.workspace / "fifo")
    os.chown(sandbox.workspace / "fifo", sandbox.uid, sandbox.uid)
    with talk(sandbox) as agent:
        limit(sandbox, agent, "nofile", 3)  # all that it could get are above that
        refused = [
            agent(f"name({act})") for act in ("os.open, 'place', os.O_RDONLY", "os.stat, 'place'", "os.mkdir, 'new'")
        ]
        assert set(refused) <= {"EMFILE", "EPERM", "EACCES", "EBADF"}, refused
        assert not (sandbox.workspace / "new").exists()
        limit(sandbox, agent, "nofile", 1024)
        assert agent("going_on() if threading.Thread(target=look, daemon=True).start() is None else 0") == "True"
        assert agent("name(os.mkdir, 'new')") == "None"
        log = finish(sandbox, agent)
    assert (sandbox.workspace / "new").is_dir()
    written = [r for r in log if r.get("errno") in refused or str(r.get("detail", "")).endswith(tuple(refused))]
    assert len(written) >= len(refused), log[-8:]


def test_the_supervisor_has_no_memory_left(sandbox: Sandbox) -> None:
    policy = sandbox.policy(
        "extends: [default]\nallow:\n  - {id: sockets, unix: {do: [bind, connect], paths: ['${workspace}/**']}}\n"
    )
    with talk(sandbox, policy) as agent:
        pid, size = agent.process.pid, 12 << 20
        assert agent("(here := socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind('socket')") == "None"
        assert agent("(there := socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).settimeout(5)") == "None"
        send = f"name(there.sendto, bytes({size}), 'socket')"
        status = Path(f"/proc/{pid}/status").read_text()
        used = int(status.partition("VmData:")[2].split()[0]) << 10
        limit(sandbox, agent, "data", used + (2 << 20))  # RLIMIT_AS leaves malloc what its arenas have reserved
        assert agent(send) in ("EPERM", "ENOMEM", "EAGAIN")
        assert agent("going_on()") == "True"
        limit(sandbox, agent, "data", "unlimited")
        assert agent(send) == "EMSGSIZE", "the kernel's word, when there is memory to ask it"
        assert agent("name(there.sendto, b'small', 'socket')") == "5"
        log = finish(sandbox, agent)
    assert any(r.get("reason") == "SUPERVISOR_ERROR" and "MemoryError" in r["detail"] for r in log) or any(
        r.get("errno") in ("ENOMEM", "EAGAIN") for r in log
    ), log[-5:]


def test_the_log_is_full(sandbox: Sandbox) -> None:
    with talk(sandbox) as agent:
        (run,) = sandbox.runs()
        room = (run / "audit.jsonl").stat().st_size + 20_000
        limit(sandbox, agent, "fsize", room)
        answer = agent("[os.mkdir(f'made-{at}') for at in range(10000)]")
        assert answer == ""  # the agent was ended before it could answer
        _, err = agent.process.communicate(timeout=60)
        assert agent.process.returncode == 125, err
        assert "cannot be written" in err
    text = (run / "audit.jsonl").read_text()
    whole = [json.loads(line) for line in text[: text.rindex("\n")].splitlines()]
    recorded = {r["target"] for r in whole if r.get("syscall") == "mkdir" and r["verdict"] == "ALLOW"}
    made = {str(path) for path in sandbox.workspace.glob("made-*")}
    assert len(made) > 10
    assert made <= recorded, "what is not in the log has not happened"


def test_the_key_cannot_be_read(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"]).status == 0
    keys = sandbox.root / "state/helm-sentry/keys"
    (key,) = [path for path in keys.rglob("*") if path.is_file() and path.stat().st_mode & 0o077 == 0]
    content = key.read_bytes()
    marker = sandbox.workspace / "ran"
    for spoil in (lambda: key.write_bytes(content[:10]), lambda: (key.unlink(), key.mkdir())):
        spoil()
        result = sandbox.run(["touch", "ran"])
        assert result.status == 125, result.stderr
        assert "key" in result.stderr, result.stderr
        assert not marker.exists()
    key.rmdir()
    key.write_bytes(content)
    key.chmod(0o600)
    os.chown(key, sandbox.uid, sandbox.uid)
    assert sandbox.run(["touch", "ran"]).status == 0
    assert marker.exists()
