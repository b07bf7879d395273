"""Whole runs whose effects the compiled receiver has: the same as without it, and under attack."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import SYSTEM_PYTHON, Result, Sandbox
from tests.kernel.test_live_policy import Live

pytestmark = pytest.mark.kernel

RULES = """extends: [default]
block:
  - {id: keys, file: {do: [all], paths: ['${workspace}/data/*/key', '${workspace}/data/locked/**']}}
  - {id: fixed, file: {do: [write], paths: ['${workspace}/data/fixed']}}
"""
CHANGES = """
import errno, os, sys
os.umask(0o027)
def tried(what, *arguments, **options):
    try:
        result = what(*arguments, **options)
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(what.__name__, *arguments, result)
    return result
def wrote(path, flags, text):
    opened = os.open(path, flags, 0o666)
    os.write(opened, text)
    os.close(opened)
W, C, X, T, A = os.O_WRONLY, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND
os.chdir("data")
for turn in range(4):
    for directory in ("even", "a", "locked", "closed", "missing"):
        for name in ("one", "key"):
            path = f"{directory}/{name}"
            tried(wrote, path, W | C | X, b"new")
            tried(wrote, path, W | C | T, b"other")
            tried(wrote, os.path.abspath(path), os.O_RDWR | A, b"more")
            tried(os.mkdir, f"{directory}/sub", 0o777)
            tried(os.mkdir, f"{directory}/sub", 0o777)
            tried(os.rename, path, f"{directory}/sub/{name}")
            tried(os.rename, f"{directory}/sub", f"{directory}/moved")
            tried(os.replace, f"{directory}/moved/{name}", f"even/{name}-{turn}")
            tried(os.symlink, "../fixed", f"{directory}/link")
            tried(wrote, f"{directory}/link", W | T, b"through")
            tried(os.unlink, f"{directory}/link")
            tried(os.rmdir, f"{directory}/moved")
            tried(os.unlink, f"{directory}/moved/{name}")
    tried(os.mkdir, "even/deep", 0o700)
    tried(wrote, "even/deep/file", W | C, b"file")
    tried(os.unlink, "even/deep/file")
    tried(os.rmdir, "even/deep")
"""


def _seed(sandbox: Sandbox) -> None:
    data = sandbox.workspace / "data"
    for directory in ("even", "a", "locked", "closed"):
        (data / directory).mkdir(parents=True)
    for name in ("a/key", "locked/one", "locked/key", "fixed"):
        (data / name).write_text(f"{name} as it was")
    (sandbox.workspace / "changes.py").write_text(CHANGES)
    for path in (data, *data.rglob("*")):
        os.chown(path, sandbox.uid, sandbox.uid)
    (data / "closed").chmod(0o555)


def _tree(root: Path) -> dict[str, tuple[int, bytes]]:
    paths = sorted(root.rglob("*"))
    return {str(p.relative_to(root)): (p.lstat().st_mode, p.read_bytes() if p.is_file() else b"") for p in paths}


def _judged(result: Result) -> list[tuple[object, ...]]:
    """All that is the same in two runs: not the times, and objects only as to whether there is one."""
    members = ("type", "syscall", "ops", "target", "to", "verdict", "rule", "reason", "action", "errno", "of")
    records = [r for r in result.records if "/data" in str(r.get("target")) or r["type"] == "outcome"]
    first = min(int(r["seq"]) for r in records)
    return [
        (*(str(r.get(m)) for m in members[:-1]), "object" in r, int(r["of"]) - first if "of" in r else -1)
        for r in records
    ]


@pytest.mark.every_tier
def test_with_and_without_it_a_run_is_the_same(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    """Answers, what is left behind, and all records; what is blocked among them is blocked."""
    policy, found = sandbox.policy(RULES), {}
    for native in ("on", "off"):
        os.system(f"rm -rf {sandbox.workspace}/data")
        _seed(sandbox)
        result = sandbox.run([SYSTEM_PYTHON, "changes.py"], policy, environment={"HELM_SENTRY_NATIVE": native})
        assert result.status == 0, result.stderr
        found[native] = result.stdout, _tree(sandbox.workspace / "data"), _judged(result)
        assert sandbox.verify(result.directory).returncode == 0
    answers, left, judged = found["on"]
    assert answers == found["off"][0]
    assert left == found["off"][1]
    assert judged == found["off"][2]
    assert "EEXIST" in answers and "EACCES" in answers
    for name in ("a/key", "locked/one", "fixed"):
        assert left[name][1] == f"{name} as it was".encode()
    os.system(f"rm -rf {sandbox.workspace}/data")
    _seed(sandbox)
    assert sandbox.native([SYSTEM_PYTHON, "changes.py"]).status == 0
    assert _tree(sandbox.workspace / "data")["fixed"][1] == b"through"  # the control


# To move a directory to `kept` is blocked, since it may hold `kept/config`; to move a file there is not. While one process moves
# `sub/x` there, another exchanges it for a directory that holds a file of that name.
SWAPS = """
import os, signal, sys, time
x, inner, kept = "sub/x", "sub/x/config", "kept"
def quietly(what, *arguments):
    try: what(*arguments)
    except OSError: return False
    return True
def touch(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
def swap():
    while True:
        quietly(touch, x)
        quietly(os.unlink, x)
        quietly(os.mkdir, x)
        quietly(touch, inner)
        quietly(os.unlink, inner)
        quietly(os.rmdir, x)
"""
SWAPPED = (
    SWAPS
    + """
child = os.fork()
if child == 0:
    swap()
moved = won = 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not won:
    if quietly(os.rename, x, kept):
        moved += 1
        won = os.path.isdir(kept)
    quietly(os.unlink, kept)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(moved, won)
"""
)
KEPT = """extends: [default]
block:
  - {id: kept, file: {do: [write, create], paths: ['${workspace}/kept*/config']}}
"""


def test_a_file_that_is_moved_cannot_become_a_directory_meanwhile(sandbox: Sandbox) -> None:
    """The receiver makes the directory, the broker moves what it has seen to be a file."""
    (sandbox.workspace / "sub").mkdir()
    os.chown(sandbox.workspace / "sub", sandbox.uid, sandbox.uid)
    (sandbox.workspace / "swapped.py").write_text(SWAPPED)
    command = [SYSTEM_PYTHON, "swapped.py", "3"]
    result = sandbox.run(command, sandbox.policy(KEPT))
    moved, won = result.stdout.split()
    assert (won, int(moved) > 5) == ("False", True), result.stdout + result.stderr
    assert result.denials("file.rename"), "it was never a directory"
    control = sandbox.native(command)
    assert control.stdout.split()[1] == "True"


@pytest.mark.parametrize("native", ["on", "off"])
def test_nor_does_another_run_make_it_one(sandbox: Sandbox, native: str) -> None:
    """One agent may have several runs; its policy holds in all of them together."""
    (sandbox.workspace / "sub").mkdir()
    os.chown(sandbox.workspace / "sub", sandbox.uid, sandbox.uid)
    policy, environment = sandbox.policy(KEPT), {"HELM_SENTRY_NATIVE": native}
    program = f"{SWAPS}\nprint('began', flush=True)\nswap()"
    argv = sandbox.argv([SYSTEM_PYTHON, "-c", program], policy, ["--quiet"])
    other = sandbox.popen(argv, stdout=subprocess.PIPE, env=sandbox.environment() | environment)
    assert other.stdout is not None and other.stdout.readline() == "began\n"
    moves = SWAPPED.replace("    swap()\n", "    os._exit(0)\n")
    result = sandbox.run([SYSTEM_PYTHON, "-c", moves, "3"], policy, environment=environment)
    other.terminate()
    other.communicate()
    moved, won = result.stdout.split()
    assert (won, int(moved) > 5) == ("False", True), result.stdout + result.stderr
    assert result.denials("file.rename"), "it was never a directory"


@pytest.fixture
def live(sandbox: Sandbox) -> Iterator[Callable[[Path, str, str], Live]]:
    begun: list[Live] = []

    def begin(policy: Path, code: str, native: str) -> Live:
        begun.append(Live(sandbox, policy, code, {"HELM_SENTRY_NATIVE": native}))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


CREATOR = """
import os, select, sys
print("began", flush=True)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for place in ("one", "two"):
        for path in (f"{place}/{number}", f"{place}/{number}-dir"):
            try:
                if path.endswith("dir"): os.mkdir(path)
                else: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except OSError:
                pass
    number += 1
"""
ONLY = """extends: [base, python]
allow:
  - {{id: look, file: {{do: [stat, list], paths: ['${{workspace}}/**']}}}}
  - {{id: only, file: {{do: [create, write], paths: ['${{workspace}}/{place}/**']}}}}
"""


@pytest.mark.parametrize("native", ["on", "off"])
def test_what_is_made_while_policies_change_is_what_each_allows(
    sandbox: Sandbox, live: Callable[[Path, str, str], Live], native: str
) -> None:
    """No effect is had under an old policy once the new one is announced, and each has its record."""
    for place in ("one", "two"):
        (sandbox.workspace / place).mkdir()
        os.chown(sandbox.workspace / place, sandbox.uid, sandbox.uid)
    policies = [sandbox.policy(ONLY.format(place=place), f"only-{place}") for place in ("one", "two")]
    running = live(policies[0], CREATOR, native)
    assert running.process.stdout is not None and running.process.stdin is not None
    assert running.process.stdout.readline() == "began\n"
    for epoch in range(1, 9):
        before = {place: _names(sandbox.workspace / place) for place in ("one", "two")}
        pushed = running.push(policies[epoch % 2])
        assert pushed.returncode == 0, pushed.stderr
        closed = "two" if epoch % 2 == 0 else "one"
        at_once = _names(sandbox.workspace / closed)
        while len(_names(sandbox.workspace / ("one" if closed == "two" else "two"))) < len(before["one"]) + 20:
            if running.process.poll() is not None:
                break
        assert _names(sandbox.workspace / closed) == at_once
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    assert running.finish() == 0
    made: set[str] = set()
    failed = {r["of"] for r in running.records("outcome")}
    for r in running.records("decision"):
        if r["ops"][0] != "file.create":
            continue
        place = ("one", "two")[r.get("epoch", 0) % 2]
        assert (r["verdict"] == "ALLOW") == (f"/{place}/" in r["target"]), json.dumps(r)
        if r["verdict"] == "ALLOW" and r["seq"] not in failed:
            made.add(r["target"])
    assert made == {str(path) for place in ("one", "two") for path in (sandbox.workspace / place).iterdir()}
    assert sandbox.verify(running.directory).returncode == 0


def _names(directory: Path) -> set[str]:
    return set(os.listdir(directory))
