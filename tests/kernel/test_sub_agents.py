"""Agents that start agents, and agents that give up rights: narrower, never wider."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import CHECKOUT, Sandbox
from tests.kernel.daemons import PATIENCE, Agent, until

pytestmark = pytest.mark.kernel

# Does what it is told, a line each, and answers with a line of JSON.
OBEDIENT = """
import json, subprocess, sys
print("ready", flush=True)
def read(path):
    try: return open(path).read()
    except OSError as error: return error.strerror
for line in sys.stdin:
    what, *words = json.loads(line)
    if what == "read": answer = [read(word) for word in words]
    if what == "run":
        done = subprocess.run(words, capture_output=True, text=True)
        answer = [done.returncode, done.stdout, done.stderr]
    if what == "start":
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer = child.stdout.readline()
    if what == "tell":
        child.stdin.write(json.dumps(words) + "\\n")
        child.stdin.flush()
        answer = json.loads(child.stdout.readline())
    print(json.dumps(answer), flush=True)
"""


class Parent(Agent):
    def __call__(self, *words: str):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        return json.loads(line)

    def below(self) -> Path:
        """The directory of the one run whose agent this one started."""
        found = until(lambda: [each for each in self.sandbox.runs() if facts(each).get("parent") == self.run])
        return found[-1]

    def inspect(self, run: str) -> dict:
        process = self.sandbox.popen([*self.sandbox.command, "inspect", run], stdout=subprocess.PIPE)
        return json.loads(process.communicate(timeout=PATIENCE)[0])


def facts(directory: Path) -> dict:
    try:
        return json.loads((directory / "run.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


@pytest.fixture
def files(sandbox: Sandbox) -> list[Path]:
    made = [sandbox.root / name for name in ("both", "parents", "childs", "neither")]
    for path in made:
        path.write_text(path.name)
        path.chmod(0o644)
    return made


def policy(sandbox: Sandbox, name: str, *allowed: Path, more: str = "") -> Path:
    program = Path(sandbox.command[0])
    places = [f"{Path(each).resolve()}/**" for each in {program.parents[1], CHECKOUT, Path(sys.base_prefix) / "lib"}]
    path = sandbox.policy(
        f"""extends: [default]
allow:
  - id: files
    file: {{do: [read, stat], paths: {json.dumps(list(map(str, allowed)))}}}
  - id: ourselves
    file: {{do: [read, list, stat], paths: {json.dumps(places)}}}
  - id: our-program
    exec: {{paths: {json.dumps([str(program), str(program.resolve()), str(program.parent / "python*")])}}}
{more}""",
        name=name,
    )
    path.chmod(0o644)
    return path


@pytest.fixture
def parent(sandbox: Sandbox, files: list[Path]):
    both, own, *_ = files
    child = policy(sandbox, "child", both, files[2])
    begun = Parent(sandbox, policy(sandbox, "parent", both, own, child), OBEDIENT)
    begun.child_policy = child
    begun.command = [*sandbox.command, "run", "--policy", str(child), "--", "/usr/bin/python3", "-c", OBEDIENT]
    yield begun
    begun.close()


def test_a_run_below_is_narrower_and_the_tree_is_in_the_log(parent, files):
    both, own, childs, neither = map(str, files)
    denied = "Permission denied"
    assert parent("read", both, own, childs, neither) == ["both", "parents", denied, denied]
    assert parent("start", *parent.command) == "ready\n"
    assert parent("tell", "read", both, own, childs, neither) == ["both", denied, denied, denied]
    directory = parent.below()
    assert parent.inspect(directory.name)["parent"] == parent.run
    shown = parent.sandbox.popen([*parent.sandbox.command, "ps"], stdout=subprocess.PIPE)
    first, second = shown.communicate(timeout=PATIENCE)[0].splitlines()
    assert (first.startswith(f"{parent.run}  "), second.startswith(f"  {directory.name}  ")) == (True, True)
    shown = [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]
    refused = {r["target"]: (r["rule"], r["reason"]) for r in shown if r.get("verdict") == "DENY"}
    assert refused[childs] == ("default", "CEILING")
    assert refused[own] == ("default", "DEFAULT")
    status, _, err = parent.finish()
    assert status == 0, err
    assert [directory.name in r["detail"] for r in parent.records("notice") if r["code"] == "sub-agent"] == [True]
    for each in (directory, parent.directory):
        until(lambda each=each: parent.inspect(each.name)["state"] == "sealed")
        assert parent.sandbox.verify(each).returncode == 0


def test_what_the_parent_loses_the_child_loses(parent, files):
    both = str(files[0])
    parent("start", *parent.command)
    assert parent("tell", "read", both) == ["both"]
    frozen = parent.sandbox.popen([*parent.sandbox.command, "policy", "freeze", parent.run])
    assert frozen.wait(PATIENCE) == 0
    assert parent("tell", "read", both) == ["Permission denied"]


def test_what_the_child_is_pushed_stays_below(parent, files):
    both, own, childs, _ = map(str, files)
    parent("start", *parent.command)
    wide = policy(parent.sandbox, "wide", parent.sandbox.root / "**")
    pushed = parent.sandbox.popen([*parent.sandbox.command, "policy", "push", parent.below().name, str(wide)])
    assert pushed.wait(PATIENCE) == 0
    assert parent("tell", "read", both, own, childs) == ["both", "parents", "Permission denied"]


def test_status_and_output_of_a_run_below_are_its_own(parent):
    code = "import os, sys; print(os.getcwd()); print('err', file=sys.stderr); sys.exit(5)"
    command = [*parent.command[:-1], code]
    command.insert(2 + len(parent.sandbox.command) - 1, "--quiet")
    status, out, err = parent("run", *command)
    assert (status, out) == (5, f"{parent.sandbox.workspace}\n"), err
    assert "err" in err


# Asks by itself, without `helm-sentry run` and its own look at the program.
RAW = """
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(os.environ["HELM_SENTRY_DOOR"])
socket.send_fds(door, [b" "], [0, 1, 2, os.open(".", os.O_RDONLY)])
request = {"command": sys.argv[1:], "environment": {}, "policy": "schema: helm-sentry/policy/v1\\nname: x\\n",
           "within": [], "parent": "", "depth": -9, "user": "root", "options": {"dry_run": True}}
door.sendall(json.dumps(request).encode() + b"\\n")
print(door.makefile().readline())
"""


def test_a_program_that_the_parent_may_not_run_is_refused_before_it_is_looked_for(parent):
    def ask(program: str) -> dict:
        status, out, err = parent("run", "/usr/bin/python3", "-c", RAW, program)
        assert status == 0, err
        return json.loads(out)

    assert "run" in ask("/usr/bin/ls")  # the control: it is begun, under a policy that gives nothing
    refusals = {name: ask(name)["error"].replace(name, "it") for name in ("/usr/sbin/nologin", "/root/no-such-file")}
    assert set(refusals.values()) == {"`it` may not be executed by the run that starts it"}
    began = parent.below()
    assert facts(began)["enforcing"] is True
    parent.finish()


def test_dropped_rights_stay_dropped(parent, files):
    both, own, *_ = map(str, files)
    assert parent("read", both, own) == ["both", "parents"]
    status, out, err = parent("run", *parent.sandbox.command, "policy", "drop", str(parent.child_policy))
    assert status == 0, err
    assert json.loads(out)["epoch"] == 1
    assert parent("read", both, own) == ["both", "Permission denied"]
    again = policy(parent.sandbox, "again", parent.sandbox.root / "**")
    pushed = parent.sandbox.popen([*parent.sandbox.command, "policy", "push", parent.run, str(again)])
    assert pushed.wait(PATIENCE) == 0
    assert parent("read", both, own) == ["both", "Permission denied"]
    parent.finish()
    assert [r["by"] for r in parent.records("policy")][0] == "the agent itself"
    assert parent.sandbox.verify(parent.directory).returncode == 0


DROP = """
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(os.environ["HELM_SENTRY_DOOR"])
door.sendall(b" " + json.dumps({"do": "drop", "policy": sys.argv[1]}).encode() + b"\\n")
print(door.makefile().readline())
"""


def test_no_file_is_read_for_rights_that_are_dropped(parent, files):
    """What a policy extends would be read by the supervisor, and the answer would quote it."""
    secret = os.path.relpath(files[3], parent.sandbox.workspace)

    def drop(**members: object) -> dict:
        text = json.dumps({"schema": "helm-sentry/policy/v1", "name": "x", **members})
        status, out, err = parent("run", "/usr/bin/python3", "-c", DROP, text)
        assert status == 0, err
        return json.loads(out)

    answer = drop(extends=[f"./{secret}"])
    assert "a pack can extend only packs" in answer["error"]
    assert drop(extends=["./no-such-file"])["error"] == answer["error"].replace(secret, "no-such-file")
    everything = [{"id": "all", "exec": {"paths": ["/**"]}}, {"id": "any", "file": {"do": ["all"], "paths": ["/**"]}}]
    assert drop(allow=everything)["epoch"] == 1  # the control


def test_nobody_else_comes_in_by_the_door(parent):
    (door,) = Path(parent.inspect(parent.run)["policy"]["environment"]["set"].get("TMPDIR", "/tmp")).glob("sentry")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(door))
        peer.settimeout(PATIENCE)
        assert peer.recv(99) == b""
    parent.finish()
    assert "not an agent of this run" in [r["detail"] for r in parent.records("notice")][-1]


def test_a_run_below_ends_with_the_one_above(parent):
    parent("start", *parent.command)
    about = parent.inspect(parent.below().name)
    parent.process.kill()
    parent.process.wait()
    for pid in (about["agent"], about["supervisor"]):
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}/exe") or not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
