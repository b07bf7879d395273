"""A log that can no longer be written: the agent is refused from that moment, and nothing goes unrecorded."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run
from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel
FILES, BEFORE = 3000, 100
# Makes one file after the other and says so; told to go on once, it never looks back.
AGENT = f"""
import sys
for number in range({FILES}):
    open(f"made-{{number}}", "x").close()
    print(number, flush=True)
    if number == {BEFORE}:
        sys.stdin.readline()
"""


@pytest.fixture
def policy(sandbox: Sandbox) -> Path:
    return sandbox.policy("extends: [default]\n")


def made(sandbox: Sandbox) -> set[str]:
    return {str(path) for path in sandbox.workspace.glob("made-*")}


def run_and_break(sandbox: Sandbox, policy: Path, breaking: Callable[[int, Path], None]) -> tuple[int, str, Path]:
    """Run the agent, break something when it has made some files, and return how the run ended."""
    argv = sandbox.argv([PYTHON, "-c", AGENT], policy)
    process = sandbox.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    for line in process.stdout:
        if line == f"{BEFORE}\n":
            break
    (directory,) = sandbox.runs()
    breaking(process.pid, directory)
    _, errors = process.communicate("go\n", timeout=120)
    return process.returncode, errors, directory


def recorded(directory: Path) -> set[str]:
    """Files whose creation the log allowed, in whole records."""
    found = set()
    for name in sorted(directory.glob("audit*.jsonl")):
        for line in name.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = json.loads(line)
                if record.get("verdict") == "ALLOW" and "file.create" in record.get("ops", ()):
                    found.add(record["target"])
    return found


def assert_ended_recorded(sandbox: Sandbox, status: int, errors: str, directory: Path) -> None:
    assert status == 125, errors
    assert BEFORE < len(made(sandbox)) < FILES
    assert made(sandbox) <= recorded(directory)
    report = verify_run(read_run(str(directory)), allow_unsealed=True)
    assert report.state == "unsealed"
    assert sandbox.verify(directory).returncode == 121


def test_nothing_broken(sandbox: Sandbox, policy: Path) -> None:
    """The control: left alone, the agent makes all its files and the run is sealed."""
    status, errors, directory = run_and_break(sandbox, policy, lambda pid, path: None)
    assert status == 0, errors
    assert len(made(sandbox)) == FILES
    assert made(sandbox) <= recorded(directory)
    assert sandbox.verify(directory).returncode == 0


def test_a_file_that_may_not_grow(sandbox: Sandbox, policy: Path) -> None:
    """A quota, as the kernel enforces it: the write that crosses it is short, the next one fails."""

    def limit(pid: int, directory: Path) -> None:
        size = (directory / "audit.jsonl").stat().st_size + 10_000
        program = f"from resource import *; prlimit({pid}, RLIMIT_FSIZE, ({size}, prlimit({pid}, RLIMIT_FSIZE)[1]))"
        assert sandbox.native([PYTHON, "-c", program]).status == 0

    assert_ended_recorded(sandbox, *run_and_break(sandbox, policy, limit))


@pytest.fixture
def small_disk(sandbox: Sandbox) -> Iterator[Path]:
    """A file system of its own for the state directory."""
    if sandbox.uid or os.geteuid():
        yield Path()
        return
    state = sandbox.root / "state"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(state)], check=True)
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_full_disk(sandbox: Sandbox, policy: Path, small_disk: Path) -> None:
    if not small_disk.name:  # an ordinary user cannot have one: the quota above is the same to the supervisor
        return

    def fill(pid: int, directory: Path) -> None:
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - 16384)

    assert_ended_recorded(sandbox, *run_and_break(sandbox, policy, fill))


@pytest.fixture
def failing_disk(sandbox: Sandbox) -> Iterator[Path]:
    """An ext4 file system for the state directory that turns read-only at its first error, as most of them do."""
    if os.geteuid():
        yield Path()
        return
    state, image = sandbox.root / "state", sandbox.root / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(image), str(state)], check=True)
    os.chown(state, sandbox.uid, sandbox.uid)
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_file_system_that_turns_read_only(sandbox: Sandbox, policy: Path, failing_disk: Path) -> None:
    """The log is open already, and can be written no more."""
    if not failing_disk.name:  # only root can break a disk
        return

    def fail(pid: int, directory: Path) -> None:
        device = os.stat(directory).st_dev
        link = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        Path("/sys/fs/ext4", os.path.basename(link), "trigger_fs_error").write_text("a bad block")

    status, errors, directory = run_and_break(sandbox, policy, fail)
    assert re.search("cannot be written: .*(Read-only file system|Input/output error)", errors)
    assert_ended_recorded(sandbox, status, errors, directory)


def test_a_run_directory_remounted_read_only(sandbox: Sandbox, policy: Path) -> None:
    """The open log can still be written, so nothing is lost; what cannot be made any more ends the run."""
    if os.geteuid():  # only root can remount
        return

    def remount(pid: int, directory: Path) -> None:
        subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(directory)], check=True)

    status, errors, directory = run_and_break(sandbox, policy, remount)
    subprocess.run(["umount", "-l", str(directory)], check=True)
    assert status == 125, errors
    assert "Read-only file system" in errors
    assert made(sandbox) <= recorded(directory)
    assert sandbox.verify(directory).returncode == 121


@pytest.mark.parametrize("spoil", ["removed", "opened to others", "not a key"])
def test_a_key_that_is_gone(sandbox: Sandbox, policy: Path, spoil: str) -> None:
    """The key is in memory, but who takes it from its place wants nothing more to be signed: the run ends by itself."""

    def take_away(pid: int, directory: Path) -> None:
        key = sandbox.root / "state/helm-sentry/keys/signing.key"
        if spoil == "removed":
            key.unlink()
        elif spoil == "opened to others":
            key.chmod(0o644)
        else:
            key.write_bytes(b"nothing of the kind")
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    status, errors, directory = run_and_break(sandbox, policy, take_away)
    assert re.search("receipts cannot be written: .*signing.key", errors), errors
    assert status == 125, errors
    assert len(made(sandbox)) == BEFORE + 1
    assert made(sandbox) <= recorded(directory)
    assert verify_run(read_run(str(directory)), allow_unsealed=True).state == "unsealed"
    assert sandbox.verify(directory, "--public-key", str(directory / "public.key")).returncode == 121


def test_a_key_that_is_rotated(sandbox: Sandbox, policy: Path) -> None:
    """The run keeps the key it began with, and goes on."""

    def rotate(pid: int, directory: Path) -> None:
        key = sandbox.root / "state/helm-sentry/keys/signing.key"
        before = key.read_bytes()
        assert sandbox.native([*sandbox.command, "keys", "rotate"]).status == 0
        assert key.read_bytes() != before

    status, errors, directory = run_and_break(sandbox, policy, rotate)
    assert status == 0, errors
    assert len(made(sandbox)) == FILES
    assert sandbox.verify(directory).returncode == 0


def test_a_directory_that_takes_no_file_any_more(sandbox: Sandbox, policy: Path) -> None:
    """The log is open already and goes on; the seal cannot be made, so the run ends without one and says so."""

    def take_away(pid: int, directory: Path) -> None:
        shutil.rmtree(directory / "receipts")  # what root, whom no mode stops, can be refused by

    status, errors, directory = run_and_break(sandbox, policy, take_away)
    assert status == 125, errors
    assert re.search("(receipts|the run receipt|the files of the run) cannot be written", errors)
    assert "Traceback" not in errors
    assert made(sandbox) <= recorded(directory)


def test_a_state_directory_that_cannot_be_written_starts_nothing(sandbox: Sandbox, policy: Path) -> None:
    runs = sandbox.root / "state" / "helm-sentry" / "runs"
    assert sandbox.run(["true"], policy).status == 0
    shutil.rmtree(runs)
    runs.write_text("")  # not a directory, for root as for anybody
    process = sandbox.popen(sandbox.argv(["touch", "made-0"], policy), stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 125, errors
    assert not made(sandbox)
    runs.unlink()
    assert sandbox.run(["touch", "made-0"], policy).status == 0
    assert made(sandbox)


def test_a_key_that_cannot_be_read_starts_nothing(sandbox: Sandbox, policy: Path) -> None:
    assert sandbox.run(["true"], policy).status == 0
    key = sandbox.root / "state" / "helm-sentry" / "keys" / "signing.key"
    key.write_text("damaged")
    result = sandbox.run(["touch", "made-0"], policy)
    assert result.status == 125
    assert "signing key" in result.stderr
    assert not made(sandbox)


def test_the_agent_cannot_read_the_key_it_is_signed_with(sandbox: Sandbox) -> None:
    """Wherever it lies; the same file under another name, which is no key of this run, can be read."""
    key, copy = sandbox.workspace / "sign.pem", sandbox.workspace / "copy.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    copy.write_bytes(key.read_bytes())
    for path in (key, copy):
        path.chmod(0o600)
        os.chown(path, sandbox.uid, sandbox.uid)
    for name, readable in (("sign.pem", False), ("copy.pem", True)):
        result = sandbox.run(["cat", name], options=["--key", str(key)])
        assert ("PRIVATE KEY" in result.stdout) is readable, result.stderr
        assert result.directory
    assert [r["rule"] for r in sandbox.run(["cat", "sign.pem"], options=["--key", str(key)]).denials()] == [
        "sentry/state"
    ]


def test_a_key_by_descriptor_does_not_reach_the_agent(sandbox: Sandbox) -> None:
    key = sandbox.root / "sign.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    descriptor = os.open(key, os.O_RDONLY)
    argv = sandbox.argv([PYTHON, "-c", f"import os; print(os.read({descriptor}, 4096))"])
    argv = ["env", f"HELM_SENTRY_KEY_FD={descriptor}", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "pass_fds": [descriptor]}
    out, errors = sandbox.popen(argv, **pipes).communicate(timeout=60)
    os.close(descriptor)
    assert "PRIVATE KEY" not in out
    assert "Bad file descriptor" in errors
    public = subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout"], check=True, capture_output=True).stdout
    (sandbox.root / "k.pub").write_bytes(public)
    (directory,) = sandbox.runs()
    assert sandbox.verify(directory, "--public-key", str(sandbox.root / "k.pub")).returncode == 0
