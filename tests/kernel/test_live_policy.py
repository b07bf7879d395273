"""The policy of a run that goes on: pushed, granted for a while, frozen; each change between two decisions."""

import json
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel

PATIENCE = 30.0
BASE = "extends: [default]\nallow:\n  - id: one\n    file: {{do: [read, stat], paths: [{root}/{name}]}}\n"
# Reads a name from standard input and says what came of it; "watch" repeats an open as fast as it can.
READER = """
import sys
for line in sys.stdin:
    try: print(open(line.strip()).read(), flush=True)
    except OSError as error: print(error.strerror, flush=True)
"""


class Live:
    """A running agent that opens what it is told."""

    def __init__(self, sandbox: Sandbox, policy: Path, code: str = READER, environment: dict | None = None) -> None:
        self.sandbox = sandbox
        before = set(sandbox.runs())
        self.process = sandbox.popen(
            sandbox.argv([PYTHON, "-c", code], policy),
            env=sandbox.environment() | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + PATIENCE
        while not (new := set(sandbox.runs()) - before):
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)
        (self.directory,) = new

    @property
    def run(self) -> str:
        return self.directory.name

    def read(self, path: Path) -> str:
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.sandbox.popen(
            [*self.sandbox.command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def push(self, policy: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.command("policy", "push", *options, self.run, str(policy))

    def finish(self) -> int:
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def records(self, kind: str) -> list[dict]:
        lines = (self.directory / "audit.jsonl").read_text().splitlines()
        return [r for r in map(json.loads, lines) if r["type"] == kind]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def files(sandbox: Sandbox) -> tuple[Path, Path]:
    made = sandbox.root / "first", sandbox.root / "second"
    for path in made:
        path.write_text(path.name)
        path.chmod(0o644)
    return made


@pytest.fixture
def live(sandbox: Sandbox, files: tuple[Path, Path]) -> Iterator[Callable[..., Live]]:
    begun: list[Live] = []

    def begin(*arguments: object, **options: object) -> Live:
        begun.append(Live(sandbox, policy_for(sandbox, "first"), *arguments, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def policy_for(sandbox: Sandbox, name: str) -> Path:
    return sandbox.policy(BASE.format(root=sandbox.root, name=name), name=f"only-{name}")


def test_a_push_serves_what_was_denied_and_the_reverse(live, sandbox, files):
    running = live()
    first, second = files
    assert [running.read(first), running.read(second)] == ["first", "Permission denied"]
    assert [running.read(first) for _ in range(5)] == ["first"] * 5  # by the compiled receiver, where there is one
    pushed = running.push(policy_for(sandbox, "second"))
    assert pushed.returncode == 0, pushed.stderr
    answer = json.loads(pushed.stdout)
    assert answer["epoch"] == 1
    print(f"the swap took {answer['microseconds'] / 1000:.1f} ms")
    assert answer["microseconds"] < 1_000_000
    assert [running.read(first), running.read(second)] == ["Permission denied", "second"]
    assert running.finish() == 0
    (change,) = running.records("policy")
    assert (change["state"], change["epoch"]) == ("applied", 1)
    assert change["policy"]["name"] == "only-second"
    for r in running.records("decision"):
        assert r.get("epoch", 0) == (1 if r["seq"] > change["seq"] else 0)
    assert sandbox.verify(running.directory).returncode == 0


def test_the_agent_is_not_let_into_the_state_by_any_policy(live, sandbox, files):
    running = live()
    assert running.read(files[0]) == "first"  # by now it can be reached
    policy = sandbox.policy(
        f"extends: [default]\nallow:\n  - id: all\n    file: {{do: [all], paths: ['{sandbox.root}/**']}}\n", name="wide"
    )
    assert running.push(policy).returncode == 0
    assert running.read(files[1]) == "second"
    assert running.read(running.directory / "run.json") == "Permission denied"


@pytest.mark.parametrize("how", ["stale", "unsigned", "other key", "other run", "malformed", "no text", "endless"])
def test_what_is_not_accepted_changes_nothing_and_is_recorded(live, sandbox, files, how):
    running = live()
    assert running.read(files[0]) == "first"
    policy = policy_for(sandbox, "second")
    script = sandbox.root / "push.py"
    script.write_text(PUSH)
    python = str(Path(sandbox.command[0]).parent / "python")
    process = sandbox.popen([python, str(script), running.run, str(policy), how], stdout=subprocess.PIPE)
    assert process.communicate(timeout=PATIENCE)[0].startswith("refused:")
    assert running.read(files[0]) == "first"
    assert running.read(files[1]) == "Permission denied"
    good = sandbox.popen([python, str(script), running.run, str(policy), "good"], stdout=subprocess.PIPE)
    assert good.communicate(timeout=PATIENCE)[0].startswith("epoch 1")
    assert running.read(files[1]) == "second"
    assert running.finish() == 0
    endless = [r["detail"] for r in running.records("notice") if r["code"] == "control-refused"]
    assert ["at most" in detail for detail in endless] == [True] * (how == "endless")
    assert [r["state"] for r in running.records("policy")] == ["refused"] * (how != "endless") + ["applied"]
    assert sandbox.verify(running.directory).returncode == 0


PUSH = r"""
import os, sys
from helm_sentry import state
from helm_sentry.control.bundle import Bundle
from helm_sentry.control.client import ask
from helm_sentry.errors import SentryError
from helm_sentry.policy.loader import load_file
from helm_sentry.receipt.keyring import signing_key
from helm_sentry.receipt.keys import SigningKey
run, path, how = sys.argv[1:]
variables = {"workspace": "/w", "home": "/h", "tmp": "/t", "user": "u", "program": "/p"}
key = SigningKey(os.urandom(32)) if how == "other key" else signing_key(state.key_directory(), os.environ)
bundle = Bundle("x" if how == "other run" else run, 7 if how == "stale" else 0, load_file(path, variables))
signed = bundle.sign(key).decode()
if how == "unsigned": signed = signed.replace('"signatures":[', '"signatures":[],"was":[')
if how == "no text": signed = "\ud800"
if how == "endless": signed += " " * (5 << 20)
if how == "malformed": signed = signed[:-20]
try:
    print("epoch", next(iter(ask(state.control_directory(), run, {"do": "apply", "bundle": signed})))["epoch"])
except SentryError as error:
    print("refused:", error)
"""


def test_a_dry_run_of_a_push_changes_nothing(live, sandbox, files):
    running = live()
    assert running.read(files[0]) == "first"
    assert json.loads(running.push(policy_for(sandbox, "second"), "--dry-run").stdout)["epoch"] == 0
    assert running.read(files[1]) == "Permission denied"


def test_a_grant_ends_by_itself_or_is_taken_back(live, sandbox, files):
    running = live()
    extra = sandbox.policy(f"allow:\n  - id: x\n    file: {{do: [read], paths: [{files[1]}]}}\n", name="extra")
    assert running.read(files[1]) == "Permission denied"
    granted = running.command("policy", "grant", running.run, str(extra), "--for", "1h")
    assert granted.returncode == 0, granted.stderr
    assert running.read(files[1]) == "second"
    revoked = running.command("policy", "revoke", running.run, json.loads(granted.stdout)["grant"])
    assert revoked.returncode == 0, revoked.stderr
    assert running.read(files[1]) == "Permission denied"
    assert running.command("policy", "grant", running.run, str(extra), "--for", "1s").returncode == 0
    deadline = time.monotonic() + PATIENCE
    while running.read(files[1]) != "Permission denied":
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)
    assert running.read(files[0]) == "first"
    assert running.finish() == 0
    assert [r["detail"] for r in running.records("policy")][-1] == "`grant-2` is over"


def test_a_frozen_run_may_nothing_until_a_policy_is_pushed(live, sandbox, files):
    running = live()
    assert running.read(files[0]) == "first"
    assert running.command("policy", "freeze", running.run).returncode == 0
    assert running.read(files[0]) == "Permission denied"
    (shown,) = [json.loads(line) for line in running.command("ps", "--json").stdout.splitlines()]
    assert (shown["run"], shown["frozen"], shown["epoch"]) == (running.run, True, 1)
    assert running.push(policy_for(sandbox, "second")).returncode == 0
    assert running.read(files[1]) == "second"


def test_a_killed_run_is_ended_and_sealed(live, sandbox, files):
    running = live()
    assert running.read(files[0]) == "first"
    assert running.command("kill", running.run).returncode == 0
    assert running.finish() == -9
    assert [r["code"] for r in running.records("notice") if r["code"] == "killed"] == ["killed"]
    assert sandbox.verify(running.directory).returncode == 0
    assert running.command("kill", running.run).returncode == 125


HAMMER = """
import os, sys, threading
stop = False
def hammer(paths):
    while not stop:
        for path in paths:
            try: os.close(os.open(path, os.O_RDONLY))
            except PermissionError: pass
threads = [threading.Thread(target=hammer, args=(sys.argv[1:][::step],)) for step in (1, -1)]
for thread in threads: thread.start()
print("began", flush=True)
sys.stdin.readline()
stop = True
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("native", ["on", "off"])
def test_no_decision_is_made_under_a_mixture(live, sandbox, files, native):
    """Each decision in the log is the one that the policy of its epoch gives, and epochs come in order."""
    count = int(os.environ.get("HELM_SENTRY_TEST_UPDATES", "40"))
    first, second = map(str, files)
    code = HAMMER.replace("sys.argv[1:]", repr([first, second]))
    running = live(code, {"HELM_SENTRY_NATIVE": native})
    assert running.process.stdout.readline() == "began\n"
    script = sandbox.root / "many.py"
    script.write_text(MANY)
    policies = [str(policy_for(sandbox, name)) for name in ("first", "second")]
    rng = random.Random(9)
    order = "".join(str(rng.randrange(2)) for _ in range(count))
    python = str(Path(sandbox.command[0]).parent / "python")
    process = sandbox.popen([python, str(script), running.run, *policies, order], stdout=subprocess.PIPE)
    took = json.loads(process.communicate(timeout=PATIENCE * 10)[0])
    print(f"{count} updates: median {sorted(took)[count // 2]:.1f} ms, worst {max(took):.1f} ms there and back")
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    assert running.finish() == 0
    allowed = {0: first} | {epoch: (first, second)[int(which)] for epoch, which in enumerate(order, 1)}
    made = [r for r in running.records("decision") if r["target"] in (first, second)]
    for r in made:
        assert (r["verdict"] == "ALLOW") == (r["target"] == allowed[r.get("epoch", 0)]), r
    epochs = [r.get("epoch", 0) for r in made]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 2
    print(f"{len(made)} decisions under {len(set(epochs))} policies")
    assert sandbox.verify(running.directory).returncode == 0


MANY = """
import json, os, sys, time
from helm_sentry import state
from helm_sentry.control.bundle import Bundle
from helm_sentry.control.client import ask
from helm_sentry.policy.loader import load_file
from helm_sentry.receipt.keyring import signing_key
run, first, second, order = sys.argv[1:]
key = signing_key(state.key_directory(), os.environ)
variables = {"workspace": "/w", "home": "/h", "tmp": "/t", "user": "u", "program": "/p"}
policies = [load_file(path, variables) for path in (first, second)]
took = []
for epoch, which in enumerate(order):
    signed = Bundle(run, epoch, policies[int(which)]).sign(key).decode()
    before = time.monotonic()
    (answer,) = ask(state.control_directory(), run, {"do": "apply", "bundle": signed})
    took.append((time.monotonic() - before) * 1000)
    assert answer["epoch"] == epoch + 1
print(json.dumps(took))
"""


def test_another_user_is_turned_away(live, sandbox, files):
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    running = live()
    assert running.read(files[0]) == "first"
    control = sandbox.root / "state" / "helm-sentry" / "control"
    for directory in (sandbox.root / "state" / "helm-sentry", control):
        directory.chmod(0o711)
    (control / running.run).chmod(0o666)
    code = f"""
import os, socket
os.setuid(65533)
peer = socket.socket(socket.AF_UNIX)
peer.connect({str(control / running.run)!r})
try:
    peer.sendall(b'{{"do": "freeze"}}\\n')
    print(peer.recv(99))
except OSError:
    print(b"")
"""
    assert subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout == "b''\n"
    assert running.read(files[0]) == "first"
    running.finish()
    assert [r["code"] for r in running.records("notice") if r["code"] == "control-refused"] == ["control-refused"]


def test_a_watched_policy_file_is_read_again_when_it_changes_and_upon_a_hangup(sandbox, files):
    first, second = files
    policy = policy_for(sandbox, "first")
    before = set(sandbox.runs())
    process = sandbox.popen(
        sandbox.argv([PYTHON, "-c", READER], policy, ("--watch",)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def read(path: Path) -> str:
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def says(text: str) -> bool:
        while text not in (line := process.stderr.readline()):
            assert line
        return True

    try:
        assert [read(first), read(second)] == ["first", "Permission denied"]
        policy.write_text(policy.read_text().replace(f"/{first.name}]", f"/{second.name}]"))
        assert says("epoch 1")
        assert [read(first), read(second)] == ["Permission denied", "second"]
        policy.write_text("allow: everything")
        assert says("stays as it was")
        assert read(second) == "second"
        process.send_signal(signal.SIGHUP)
        assert says("stays as it was")
        policy_for(sandbox, "first").rename(policy.with_suffix(".new"))
        policy.with_suffix(".new").rename(policy)
        process.send_signal(signal.SIGHUP)
        assert says("epoch 2")
        assert [read(first), read(second)] == ["first", "Permission denied"]
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()
    (directory,) = set(sandbox.runs()) - before
    changes = [
        r for r in map(json.loads, (directory / "audit.jsonl").read_text().splitlines()) if r["type"] == "policy"
    ]
    assert {r["state"] for r in changes} == {"applied", "refused"}
    assert {r["by"] for r in changes} <= {"SIGHUP", "its file changed"}
    assert sandbox.verify(directory).returncode == 0
