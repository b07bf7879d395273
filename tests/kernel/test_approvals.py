"""Calls that wait for a person: a real agent waits in the syscall; the answer comes by command or at the terminal."""

import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, Sandbox
from tests.kernel.test_terminal import Start, start

pytestmark = pytest.mark.kernel
assert start  # a fixture

PATIENCE = 30.0
POLICY = """extends: [default]
allow:
  - id: plain
    file: {{do: [read, stat], paths: [{root}/plain]}}
contextual:
  - id: ask
    file: {{do: [read, write, create, truncate, delete, chmod, xattr], paths: ['{root}/guarded/**']}}
    when: "false"
    otherwise: escalate
  - id: ask-exec
    exec: {{paths: [/usr/bin/id]}}
    when: "false"
    otherwise: escalate
"""


class Agent:
    """A running agent under a policy that asks, and somebody who can answer."""

    def __init__(self, sandbox: Sandbox, command: list[str], policy: Path, options: tuple[str, ...] = ()) -> None:
        self.sandbox, self.before = sandbox, set(sandbox.runs())
        self.process = sandbox.popen(
            sandbox.argv(command, policy, options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def approvals(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return approvals(self.sandbox, *arguments)

    def questions(self, count: int = 1) -> list[dict]:
        """Wait until so many calls wait, and return them."""
        deadline = time.monotonic() + PATIENCE
        while len(found := waiting(self.sandbox)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} wait"
            assert self.process.poll() is None, self.process.communicate()
            select.select([], [], [], 0.02)
        return found

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    @property
    def directory(self) -> Path:
        (made,) = set(self.sandbox.runs()) - self.before
        return made

    def records(self, kind: str) -> list[dict]:
        lines = (self.directory / "audit.jsonl").read_text().splitlines()
        return [r for r in map(json.loads, lines) if r["type"] == kind]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def approvals(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = sandbox.popen([*sandbox.command, "approvals", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def waiting(sandbox: Sandbox) -> list[dict]:
    listed = approvals(sandbox, "list", "--json")
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def name(question: dict) -> str:
    return f"{question['run']}/{question['question']}"


@pytest.fixture
def guarded(sandbox: Sandbox) -> Path:
    """A directory that only a person opens, and what it holds."""
    directory = sandbox.root / "guarded"
    directory.mkdir()
    directory.chmod(0o777)
    for place, text in ((directory / "a", "first"), (directory / "b", "second"), (sandbox.root / "plain", "plain")):
        place.write_text(text)
        place.chmod(0o666)
    return directory


@pytest.fixture
def agent(sandbox: Sandbox, guarded: Path) -> Iterator[Callable[..., Agent]]:
    begun: list[Agent] = []
    policy = sandbox.policy(POLICY.format(root=sandbox.root))

    def begin(command: list[str], *options: str) -> Agent:
        begun.append(Agent(sandbox, command, policy, options))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def decisions(agent: Agent) -> list[tuple[str, str]]:
    return [(r["verdict"], r["reason"]) for r in agent.records("decision") if r["rule"] in ("ask", "ask-exec")]


class TestByCommand:
    def test_an_approved_read_is_served(self, agent, guarded, sandbox):
        running = agent(["cat", str(guarded / "a")])
        (question,) = running.questions()
        assert question["operations"] == ["file.read"]
        assert any(str(guarded / "a") in line for line in question["lines"])
        assert running.approvals("approve", name(question)).returncode == 0
        status, out, _ = running.finish()
        assert (status, out) == (0, "first")
        assert decisions(running) == [("ESCALATE", "CONDITION"), ("ALLOW", "APPROVED")]
        (answer,) = running.records("approval")
        asked = next(r for r in running.records("decision") if r["verdict"] == "ESCALATE")
        assert (answer["of"], answer["answer"], answer["digest"]) == (asked["seq"], "once", question["digest"])
        assert f"(uid {sandbox.uid}) by command" in answer["by"]
        receipts = (running.directory / "receipts" / "denials.jsonl").read_bytes().count(b"\n")
        assert receipts >= 2  # the question and the answer, each signed
        assert sandbox.verify(running.directory).returncode == 0

    def test_an_answer_that_is_edited_is_found(self, agent, guarded, sandbox):
        running = agent(["cat", str(guarded / "a")])
        running.approvals("deny", name(running.questions()[0]))
        running.finish()
        assert sandbox.verify(running.directory).returncode == 0
        log = running.directory / "audit.jsonl"
        log.write_text(log.read_text().replace('"answer":"deny"', '"answer":"once"'))
        assert sandbox.verify(running.directory).returncode == 121

    def test_a_refused_read_is_denied_and_not_asked_again_at_once(self, agent, guarded):
        code = f"""
for _ in range(2):
    try: print(open({str(guarded / "a")!r}).read())
    except PermissionError as error: print(error.strerror)
"""
        running = agent([PYTHON, "-c", code])
        assert running.approvals("deny", name(running.questions()[0])).returncode == 0
        assert running.finish()[1] == "Permission denied\n" * 2
        assert decisions(running) == [("ESCALATE", "CONDITION"), ("DENY", "DISAPPROVED"), ("DENY", "DISAPPROVED")]

    def test_time_denies(self, agent, guarded):
        running = agent(["cat", str(guarded / "a")], "--approve-within", "0.3")
        status, out, err = running.finish()
        assert (status, out) == (1, "")
        assert "nobody gave it" in err
        assert decisions(running) == [("ESCALATE", "CONDITION"), ("DENY", "UNANSWERED")]
        assert running.records("approval") == []

    def test_once_is_once_and_for_the_run_is_for_the_run(self, agent, guarded):
        first, second = str(guarded / "a"), str(guarded / "b")
        running = agent(["sh", "-c", f"cat {first}; cat {first}; cat {second}; cat {second}"])
        for number, options in ((1, ()), (2, ()), (3, ("--run",))):
            (question,) = running.questions()
            assert question["question"] == number
            running.approvals("approve", name(question), *options)
        assert running.finish()[1] == "firstfirstsecondsecond"
        assert decisions(running).count(("ESCALATE", "CONDITION")) == 3

    def test_for_the_run_is_for_what_was_shown(self, agent, guarded):
        """The same operation with another mode, or a link of the same name to another place, asks anew."""
        code = f"""
import os
own = {str(guarded / "own")!r}
os.close(os.open(own, os.O_CREAT | os.O_WRONLY, 0o600))
os.chmod(own, 0o644)
os.chmod(own, 0o644)
os.chmod(own, 0o4777)
os.symlink("harmless", {str(guarded / "link")!r})
os.unlink({str(guarded / "link")!r})
os.symlink("/etc/shadow", {str(guarded / "link")!r})
"""
        running = agent([PYTHON, "-c", code])
        shown = []
        for number in range(1, 7):
            (question,) = running.questions()
            assert question["question"] == number
            shown.append(" ".join(question["lines"]))
            running.approvals("approve", "--run", name(question))
        assert running.finish()[0] == 0
        for words, line in zip(
            ("0600", "0644", "4777", "[harmless]", "file.delete", "[/etc/shadow]"), shown, strict=True
        ):
            assert words in line, shown
        assert not any("all beneath" in line for line in shown)

    def test_always_holds_for_a_program_whose_environment_names_the_runs_own_directory(self, agent):
        code = "import os, subprocess; subprocess.run(['/usr/bin/id'], env={'WHERE': os.environ['TMPDIR']})"
        running = agent([PYTHON, "-c", code])
        running.approvals("approve", "--always", name(running.questions()[0]))
        assert running.finish()[0] == 0
        again = agent([PYTHON, "-c", code], "--approve-within", "5")
        assert again.finish()[0] == 0
        assert decisions(again) == [("ALLOW", "APPROVED")]

    def test_always_holds_in_later_runs_of_this_policy_alone(self, agent, guarded, sandbox):
        command = ["cat", str(guarded / "a")]
        running = agent(command)
        running.approvals("approve", "--always", name(running.questions()[0]))
        assert running.finish()[1] == "first"
        again = agent(command)
        assert again.finish()[1] == "first"
        assert decisions(again) == [("ALLOW", "APPROVED")]
        (kept,) = map(json.loads, running.approvals("kept", "--json").stdout.splitlines())
        assert (kept["rule"], kept["lines"]) == ("ask", [f"file.read {guarded}/a"])
        assert running.approvals("forget", "nonsense").returncode == 2
        assert "forgotten" in running.approvals("forget", kept["name"]).stdout
        assert running.approvals("kept").stdout == ""
        forgotten = agent(command, "--approve-within", "0.2")
        assert (forgotten.finish()[0], decisions(forgotten)[-1]) == (1, ("DENY", "UNANSWERED"))
        again.approvals("approve", "--always", name(agent(command).questions()[0]))
        sandbox.policy(POLICY.format(root=sandbox.root) + "limits: {open_files: 200}\n")
        changed = agent(command, "--approve-within", "0.2")
        assert changed.finish()[0] == 1
        assert decisions(changed)[-1] == ("DENY", "UNANSWERED")

    def test_an_approved_program_runs_with_what_was_approved(self, agent):
        running = agent(["sh", "-c", "/usr/bin/id -u; true"])
        (question,) = running.questions()
        assert "[/usr/bin/id] [-u]" in " ".join(question["lines"])
        running.approvals("approve", name(question))
        status, out, _ = running.finish()
        assert (status, out.strip().isdigit()) == (0, True)

    def test_an_approved_write_takes_effect_once(self, agent, guarded):
        running = agent(["sh", "-c", f"echo more >> {guarded}/a"])
        running.approvals("approve", name(running.questions()[0]))
        assert running.finish()[0] == 0
        assert (guarded / "a").read_text() == "firstmore\n"

    def test_what_nobody_asks_cannot_be_answered(self, agent, guarded):
        running = agent(["cat", str(guarded / "a")])
        run = running.questions()[0]["run"]
        wrong = running.approvals("approve", f"{run}/7")
        assert (wrong.returncode, "no question 7 waits" in wrong.stderr) == (2, True)
        assert running.approvals("approve", "nonsense").returncode == 2
        assert running.approvals("approve", "1").returncode == 2  # of whichever run asks by now
        other = running.approvals("approve", "--digest", "0" * 64, f"{run}/1")
        assert (other.returncode, "other arguments" in other.stderr) == (2, True)
        assert running.approvals("approve", "--run", "--always", f"{run}/1").returncode == 2
        assert running.questions()[0]["run"] == run
        assert running.approvals("approve", "20200101-000000-abcdef/1").returncode == 125


class TestWhileItWaits:
    def test_other_threads_go_on(self, agent, guarded, sandbox):
        code = f"""
import threading
threading.Thread(target=lambda: print(open({str(guarded / "a")!r}).read(), flush=True)).start()
for _ in range(50): open({str(sandbox.root / "plain")!r}).close()
print("went on", flush=True)
"""
        running = agent([PYTHON, "-c", code])
        assert running.process.stdout.readline() == "went on\n"
        running.approvals("approve", name(running.questions()[0]))
        assert running.finish()[1] == "first\n"

    def test_a_signal_is_handled_and_the_call_made_again(self, agent, guarded):
        code = f"""
import signal
signal.signal(signal.SIGALRM, lambda *_: print("rang", flush=True))
signal.setitimer(signal.ITIMER_REAL, 0.2)
print(open({str(guarded / "a")!r}).read())
"""
        running = agent([PYTHON, "-c", code])
        assert running.process.stdout.readline() == "rang\n"
        running.approvals("approve", name(running.questions()[0]))
        assert running.finish()[1] == "first\n"

    def test_one_that_is_killed_asks_no_more(self, agent, guarded):
        running = agent(["sh", "-c", f"cat {guarded}/a & read line; kill -9 $!; wait $!; echo ended; read line"])
        (question,) = running.questions()
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        assert running.process.stdout.readline() == "ended\n"
        deadline = time.monotonic() + PATIENCE
        while waiting(running.sandbox):
            assert time.monotonic() < deadline
        assert running.approvals("approve", name(question)).returncode == 2

    def test_an_object_that_is_swapped_after_the_question_is_not_opened(self, agent, guarded):
        running = agent(["cat", str(guarded / "a")])
        (question,) = running.questions()
        (guarded / "a").rename(guarded / "old")
        (guarded / "a").write_text("swapped")
        running.approvals("approve", name(question))
        assert running.finish()[1] == ""
        assert decisions(running) == [("ESCALATE", "CONDITION"), ("DENY", "CHANGED")]

    def test_arguments_that_change_after_the_question_are_not_used(self, agent, guarded):
        code = f"""
import ctypes, os, sys, threading
path = ctypes.create_string_buffer({os.fsencode(guarded / "a")!r})
libc = ctypes.CDLL(None, use_errno=True)
def ask():
    opened = libc.open(path, 0)
    print(os.read(opened, 99) if opened >= 0 else os.strerror(ctypes.get_errno()), flush=True)
thread = threading.Thread(target=ask)
thread.start()
sys.stdin.readline()
path[len(path) - 2] = b"b"
print("changed", flush=True)
thread.join()
"""
        running = agent([PYTHON, "-c", code])
        (question,) = running.questions()
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        assert running.process.stdout.readline() == "changed\n"
        running.approvals("approve", name(question))
        assert running.finish()[1] == "Permission denied\n"
        assert decisions(running) == [("ESCALATE", "CONDITION"), ("DENY", "CHANGED")]

    def test_many_wait_and_others_are_served(self, agent, guarded, sandbox):
        count = int(os.environ.get("HELM_SENTRY_TEST_QUESTIONS", "60"))
        code = f"""
import os, sys, threading, time
threading.stack_size(65536)
def ask(number):
    os.close(os.open({str(guarded)!r} + f"/new{{number}}", os.O_CREAT | os.O_WRONLY))
threads = [threading.Thread(target=ask, args=(number,)) for number in range({count})]
for thread in threads: thread.start()
sys.stdin.readline()
slowest = 0
for _ in range(200):
    before = time.monotonic()
    os.close(os.open({str(sandbox.root / "plain")!r}, os.O_RDONLY))
    slowest = max(slowest, time.monotonic() - before)
print(slowest, flush=True)
for thread in threads: thread.join()
"""
        running = agent([PYTHON, "-c", code])
        questions = running.questions(count)
        assert len({question["lines"][1] for question in questions}) == count
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        slowest = float(running.process.stdout.readline())
        print(f"{count} wait; the slowest of 200 other opens took {slowest * 1000:.1f} ms")
        assert slowest < 1.0
        for question in questions[:3]:
            assert running.approvals("approve", name(question)).returncode == 0
        approved = {re.search(r"/(new\d+)", q["lines"][1]).group(1) for q in questions[:3]}
        deadline = time.monotonic() + PATIENCE  # an approval is said before it is acted on
        while {path.name for path in guarded.glob("new*")} < approved and time.monotonic() < deadline:
            select.select([], [], [], 0.02)
        assert {path.name for path in guarded.glob("new*")} == approved


class TestTheAgentCannotAnswer:
    def test_by_its_own_command_or_socket(self, agent, guarded, sandbox):
        control = sandbox.root / "state" / "helm-sentry" / "control"
        code = f"""
import os, socket
for what in (lambda: os.listdir({str(control)!r}),
             lambda: socket.socket(socket.AF_UNIX).connect({str(control)!r} + "/" + os.environ["RUN"])):
    try: what(); print("reached")
    except OSError as error: print(error.strerror)
"""
        waiting_one = agent(["cat", str(guarded / "a")])
        (question,) = waiting_one.questions()
        script = sandbox.workspace / "attack.py"
        script.write_text(code)
        policy = sandbox.policy(
            POLICY.format(root=sandbox.root) + f"environment: {{pass: [PATH], set: {{RUN: {question['run']}}}}}\n"
        )
        policy.write_text(
            policy.read_text().replace(
                "contextual:",
                f"  - id: w\n    unix: {{do: [connect], paths: ['{sandbox.root}/**']}}\n"
                f"  - id: l\n    file: {{do: [list, stat, read], paths: ['{sandbox.root}/**']}}\ncontextual:",
            )
        )
        native = sandbox.popen(
            [PYTHON, str(script)], env=sandbox.environment() | {"RUN": question["run"]}, stdout=subprocess.PIPE
        )
        assert (
            native.communicate(timeout=PATIENCE)[0] == "reached\n" * 2
        )  # what the agent is kept from, its user may do
        attack = Agent(sandbox, [PYTHON, str(script)], policy)
        assert attack.finish()[1] == "Permission denied\n" * 2
        assert {r["rule"] for r in attack.records("decision") if r["verdict"] == "DENY"} >= {
            "sentry/state",
            "sentry/state-sockets",
        }
        assert len(waiting(sandbox)) == 1  # nobody has answered


class TestAtTheTerminal:
    @pytest.mark.parametrize(
        ("typed", "said", "status"),
        [("o", "first", 0), ("d", "Permission denied", 1), ("\x03", "Permission denied", 1)],
    )
    def test_the_question_is_asked_and_answered(self, start: Start, sandbox, guarded, typed, said, status):
        policy = sandbox.policy(POLICY.format(root=sandbox.root))
        terminal = start(sandbox.argv(["cat", str(guarded / "a")], policy))
        terminal.expect(rf"file.read {guarded}/a")
        terminal.expect(r"\[d\]eny: ")
        terminal.type(typed if typed == "\x03" else typed + "\n")
        terminal.expect(said)
        assert terminal.wait() == status

    def test_what_is_long_does_not_hide_what_is_asked(self, start: Start, sandbox, guarded):
        policy = sandbox.policy(POLICY.format(root=sandbox.root))
        code = "import subprocess; subprocess.run(['/usr/bin/id'] + ['x' * 500] * 20, env={'LD_PRELOAD': '/tmp/' + 'y' * 3000})"
        terminal = start(sandbox.argv([PYTHON, "-c", code], policy))
        shown = terminal.expect(r"(?s)approval is needed.*\[d\]eny: ").group()
        assert "exec /usr/bin/id" in shown[shown.index("again, what is asked for") :]
        assert "characters more" in shown
        terminal.type("d\n")
        terminal.wait()

    def test_names_cannot_steer_the_terminal(self, start: Start, sandbox, guarded):
        policy = sandbox.policy(POLICY.format(root=sandbox.root))
        evil = "x\x1b[2J\x1b]0;title\x07\r\n[o]nce\u202e"
        terminal = start(sandbox.argv([PYTHON, "-c", f"open({str(guarded)!r} + '/' + {evil!r}, 'w')"], policy))
        shown = terminal.expect(r"(?s)approval is needed.*\[d\]eny: ").group()
        assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\u202e]", shown)
        terminal.type("d\n")
        assert terminal.wait() == 1

    def test_the_agent_does_not_get_the_answer_and_goes_on_after_it(self, start: Start, sandbox, guarded):
        code = f"""
import threading
opened = threading.Thread(target=lambda: print("got", open({str(guarded / "a")!r}).read(), flush=True))
opened.start()
print("read", repr(input()), flush=True)
opened.join()
"""
        policy = sandbox.policy(POLICY.format(root=sandbox.root))
        terminal = start(sandbox.argv([PYTHON, "-c", code], policy))
        terminal.expect(r"\[d\]eny: ")
        terminal.type("once\n")
        terminal.expect("got first")
        terminal.type("mine\n")
        terminal.expect("read 'mine'")
        assert terminal.wait() == 0

    def test_an_answer_by_command_takes_the_question_back(self, start: Start, sandbox, guarded):
        policy = sandbox.policy(POLICY.format(root=sandbox.root))
        terminal = start(sandbox.argv(["cat", str(guarded / "a")], policy))
        terminal.expect(r"\[d\]eny: ")
        (question,) = waiting(sandbox)
        assert approvals(sandbox, "approve", name(question)).returncode == 0
        terminal.expect("first")
        assert terminal.wait() == 0
