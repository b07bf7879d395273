"""`run --durable`: what tells of an act is on the disk before the act, by the kernel's own account of the supervisor."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, TIER, Sandbox

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("strace"), reason="only root may trace a supervisor"),
]
ROUNDS = 30
AGENT = f"""
import os, socket, subprocess, sys
print("up", flush=True)
sys.stdin.readline()
for number in range({ROUNDS}):
    os.mkdir("d")
    open("d/f", "w").close()
    open("d/f", "a").close()
    open("d/f", "w").close()
    os.chmod("d/f", 0o600)
    os.rename("d/f", "d/g")
    os.link("d/g", "d/h")
    os.symlink("g", "d/s")
    for name in "ghs": os.unlink("d/" + name)
    os.rmdir("d")
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))): pass
    with socket.socket(type=socket.SOCK_DGRAM) as plain: plain.sendto(b"x", ("127.0.0.1", int(sys.argv[1])))
subprocess.run(["/bin/true"], check=True)
"""
CALLS = [
    "mkdirat",
    "renameat",
    "renameat2",
    "unlinkat",
    "linkat",
    "symlinkat",
    "fchmodat",
    "fchmodat2",
    "chmod",
    "connect",
]
CALLS += ["ftruncate", "sendto", "sendmsg"]
CREATES, FOR_WRITING = re.compile(r"openat\(.*O_CREAT"), re.compile(r"openat\(.*(O_WRONLY|O_RDWR)")
LOG = r"\(\d+<[^>]*/audit[^/>]*\.jsonl>"


@pytest.fixture
def traced(sandbox: Sandbox, tmp_path: Path) -> Iterator[str]:
    """The address of a server, in a policy that lets the agent connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=ROUNDS) as server:
        yield str(server.getsockname()[1])


def trace_of(sandbox: Sandbox, place: Path, port: str, *options: str) -> list[str]:
    """Return what the supervisor called while its agent worked."""
    policy = sandbox.policy(
        "extends: [default]\nallow:\n"
        f'  - {{id: server, connect: {{addresses: [127.0.0.1/32], ports: ["{port}"], protocols: [tcp, udp]}}}}\n'
    )
    argv = sandbox.argv([PYTHON, "-c", AGENT, port], policy, options)
    run = sandbox.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout
    assert run.stdout.readline() == "up\n"
    calls = ",".join(["write", "fdatasync", "openat", "ioctl", *CALLS])
    words = ["strace", "-f", "-y", "-s", "4000", "-o", str(place / "trace"), "-e", f"trace=?{calls.replace(',', ',?')}"]
    strace = subprocess.Popen([*words, "-p", str(run.pid)], stderr=subprocess.PIPE, text=True)
    assert strace.stderr
    assert "attached" in strace.stderr.readline()
    _, errors = run.communicate("go\n", timeout=120)
    strace.communicate(timeout=60)
    assert run.returncode == 0, errors
    return (place / "trace").read_text().splitlines()


def effects(trace: list[str]) -> list[tuple[str, bool]]:
    """Return each call that changes something, and whether the decision was on the disk when it began.

    A file that is there is opened first, and handed over to be written when that is recorded. A program is let run.
    """
    found, waiting, opened, running, syncing = [], False, False, False, set()
    for line in trace:
        thread, call = line.split(maxsplit=1)
        if call.startswith("openat") and "/helm-sentry/runs/" in call:
            continue
        if call.startswith("sendmsg") and "msg_name=NULL" in call:  # the supervisor's word to its own
            continue
        if re.match(rf"write{LOG}", call):
            waiting = waiting or '\\"type\\":\\"decision\\"' in call
            running = running or '[\\"exec\\"]' in call
        elif running and "NOTIF_SEND" in call and "CONTINUE" in call:
            found.append((f"exec: {call}", not waiting))
            running = False
        elif re.match(rf"fdatasync{LOG}", call):
            waiting = waiting and "= 0" not in call
            syncing |= {thread} if "unfinished" in call else set()
        elif "fdatasync resumed" in call and thread in syncing:
            syncing.remove(thread)
            waiting = waiting and "= 0" not in call
        elif call.split("(")[0] in CALLS or CREATES.match(call) or (opened and "NOTIF_ADDFD" in call):
            found.append((call, not waiting))
            opened = False
        elif FOR_WRITING.match(call):
            opened = True
    return found


def test_each_act_waits_for_the_disk(sandbox: Sandbox, tmp_path: Path, traced: str) -> None:
    done = effects(trace_of(sandbox, tmp_path, traced, "--durable"))
    assert len(done) >= 12 * ROUNDS
    assert sum(call.startswith("send") for call, _ in done) >= ROUNDS
    assert "ptrace" in TIER or sum(call.startswith("exec") for call, _ in done) >= 1
    assert [call for call, was_there in done if not was_there] == []
    directory = sandbox.runs()[-1]
    assert b'"durable":true' in (directory / "audit.jsonl").read_bytes().splitlines()[0]
    assert sandbox.verify(directory).returncode == 0


def test_without_it_none_does(sandbox: Sandbox, tmp_path: Path, traced: str) -> None:
    done = effects(trace_of(sandbox, tmp_path, traced))
    assert sum(not was_there for _, was_there in done) > ROUNDS
