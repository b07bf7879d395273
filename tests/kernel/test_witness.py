"""The second witness: the kernel's count of a run against the log's, and what happens when they differ.

As root the witness is on by default; an ordinary user may not load it, and the log says so.
"""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.abi import libc
from helm_sentry.intercept.process_tree import descendants
from helm_sentry.sensor import loader
from helm_sentry.sensor.witness import Books, Witness
from tests.kernel.conftest import SYSTEM_PYTHON, TIER, Result, Sandbox

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif("ptrace" in TIER, reason="no witness looks at a traced run; test_tracer says so"),
]
OPENS = int(os.environ.get("WITNESS_OPENS", "2000"))
FORKS = int(os.environ.get("WITNESS_FORKS", "100"))  # even: each round makes two processes
EXECS = int(os.environ.get("WITNESS_EXECS", "20"))
DEADLINE = 60
POLICY = """extends: [shell]
allow:
  - id: workspace
    file: {{do: [read, stat], paths: ["${{workspace}}/**", "{victims}/**"]}}
  - id: victims
    exec: {{paths: ["{victims}/**"]}}
{more}"""

as_root = pytest.mark.parametrize("sandbox", ["root"] if os.getuid() == 0 else [], indirect=True)


def policy(sandbox: Sandbox, victims: Path, more: str = "") -> Path:
    (sandbox.workspace / "data").write_text("x")
    return sandbox.policy(POLICY.format(victims=victims, more=more))


def last_account(result: Result) -> dict[str, Any]:
    (account,) = [r for r in result.records if r["type"] == "witness" and r["state"] == "ends"]
    return account


def gaps(result: Result) -> set[str]:
    return {r["code"] for r in result.records if r["type"] == "gap"}


def require_receipt_of_the_gap(sandbox: Sandbox, result: Result) -> None:
    assert result.directory is not None
    assert sandbox.verify(result.directory).returncode == 0
    receipts = result.directory / "receipts/denials.jsonl"
    signed = receipts.read_bytes()
    assert signed.count(b"\n") == sum(r["type"] == "gap" or r.get("verdict") == "DENY" for r in result.records)
    receipts.write_bytes(signed[signed.index(b"\n") + 1 :])
    assert sandbox.verify(result.directory).returncode == 121
    receipts.write_bytes(signed)


class InTheMiddle:
    """A run whose agent waits for a byte, so that something can be done to it; `finish` lets it go on."""

    def __init__(self, sandbox: Sandbox, command: Sequence[str], rules: Path, options: Sequence[str] = ()) -> None:
        self.sandbox = sandbox
        self.before = set(sandbox.runs())
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.supervisor = sandbox.popen(sandbox.argv(command, rules, options), **pipes)
        assert self.supervisor.stdout is not None
        assert self.supervisor.stdout.readline() == "ready\n"

    def blind(self) -> None:
        """Take every thread of the agent out of the witness's map, as another root could."""
        guardian = min(descendants(self.supervisor.pid))
        map_descriptor = tasks_map(self.supervisor.pid)
        for agent in descendants(guardian):
            libc.bpf_map_delete(map_descriptor, agent.to_bytes(4, "little"))
        os.close(map_descriptor)

    def finish(self, *, unread: bool = False) -> Result:
        """Let the agent go on; with `unread` the supervisor is stopped until the agent says that it is done."""
        supervisor = self.supervisor
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        if unread:
            os.kill(supervisor.pid, signal.SIGSTOP)
        supervisor.stdin.write("\n")
        supervisor.stdin.flush()
        if unread:
            assert supervisor.stdout.readline() == "done\n"
            os.kill(supervisor.pid, signal.SIGCONT)
        out, err = supervisor.communicate(timeout=DEADLINE)
        (directory,) = set(self.sandbox.runs()) - self.before
        return Result(supervisor.returncode, out, err, directory)


def tasks_map(pid: int) -> int:
    """Return a copy of a supervisor's descriptor of the witness's map of threads: its only hash map."""
    pidfd = os.pidfd_open(pid)
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        if re.search(r"^map_type:\t1$", Path(f"/proc/{pid}/fdinfo/{name}").read_text(), re.MULTILINE):
            return libc.pidfd_getfd(pidfd, int(name))
    raise AssertionError("no map of threads")


@as_root
def test_counts_are_equal(sandbox: Sandbox, victims: Path) -> None:
    """Opens, processes that daemonise, vforks and execs: every one is in both accounts."""
    command = [str(victims / "witness_load"), str(OPENS), str(FORKS), str(EXECS)]
    result = sandbox.run(command, policy(sandbox, victims), timeout=600)
    assert result.status == 0, result.stderr
    account = last_account(result)
    kernel, log = account["kernel"], account["log"]
    assert kernel["finished"] + kernel["carried"] == log["received"] == log["recorded"] + log["unjudged"]
    assert kernel["carried"] == log["continued"]
    assert kernel["execs"] == log["execs"] == EXECS + 1
    assert (kernel["forks"], kernel["exits"]) == (FORKS + EXECS, FORKS + EXECS + 1)
    opened = [r for r in result.records if r.get("target") == str(sandbox.workspace / "data")]
    assert len(opened) == OPENS + FORKS // 2
    noticed = sum(r["type"] == "notice" and r["code"] == "bad-arguments" for r in result.records)
    assert sum(r["type"] == "decision" for r in result.records) + noticed == log["recorded"]
    assert not gaps(result)
    assert result.directory is not None
    checked = sandbox.verify(result.directory)
    assert checked.returncode == 0, checked.stderr


@as_root
def test_the_process_tree_is_in_the_log(sandbox: Sandbox, victims: Path) -> None:
    result = sandbox.run([str(victims / "witness_load"), "0", "20", "5"], policy(sandbox, victims))
    events = [r for r in result.records if r["type"] == "process"]
    main = next(r["pid"] for r in result.records if r["type"] == "exec")
    known = {main}
    for born in (r for r in events if r["event"] == "fork"):
        assert born["parent"] in known
        known.add(born["pid"])
    assert sorted(r["pid"] for r in events if r["event"] == "exit") == sorted(known)
    assert len(known) == 26


@as_root
def test_a_thread_that_executes_stays_watched(sandbox: Sandbox, victims: Path) -> None:
    """It takes the id of a leader that has just ended."""
    result = sandbox.run([str(victims / "witness_load"), "thread"], policy(sandbox, victims))
    assert result.status == 0, result.stderr
    kernel, log = last_account(result)["kernel"], last_account(result)["log"]
    assert (kernel["execs"], kernel["threads"], kernel["exits"]) == (2, 1, 1)
    assert kernel["finished"] + kernel["carried"] == log["received"]


@as_root
def test_processes_killed_in_mid_call_leave_no_gap(sandbox: Sandbox, victims: Path) -> None:
    """Twenty processes open and execute without end until the main program's end has them killed."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do (while :; do : < data; done) & (while :; do /bin/true; done) & done; "
    script += "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; done"
    result = sandbox.run(["bash", "-c", script], policy(sandbox, victims))
    assert result.status == 0, result.stderr
    assert sum(r.get("syscall") == "exit_group" for r in result.records) >= 20  # they outlived it
    assert not gaps(result)
    assert last_account(result)["kernel"]["exits"] >= 31


@as_root
@pytest.mark.parametrize(("more", "status"), [("", 0), ("on_witness_gap: deny\n", 125)], ids=["record", "deny"])
def test_a_blinded_witness_is_a_gap(sandbox: Sandbox, victims: Path, more: str, status: int) -> None:
    """The calls of an agent that is no longer in the witness's map are known to the supervisor alone."""
    command = ["bash", "-c", "echo ready; read -N 1 go; : < data; : < data"]
    rules = policy(sandbox, victims, more)
    control = InTheMiddle(sandbox, command, rules).finish()
    assert (control.status, gaps(control)) == (0, set()), control.stderr
    run = InTheMiddle(sandbox, command, rules)
    run.blind()
    result = run.finish()
    assert result.status == status, result.stderr
    assert "unseen" in gaps(result)
    assert "the kernel's count of the agent's calls and the log's differ" in result.stderr
    require_receipt_of_the_gap(sandbox, result)


@as_root
def test_an_overflown_ring_buffer_is_a_gap(sandbox: Sandbox, victims: Path) -> None:
    """While the supervisor is stopped nobody reads; forks go on, because they need no supervisor."""
    forks = loader.EVENT_BYTES // 64 + 500  # two events each, 32 bytes with their headers
    run = InTheMiddle(sandbox, [str(victims / "witness_load"), "storm", str(forks)], policy(sandbox, victims))
    result = run.finish(unread=True)
    assert result.status == 0, result.stderr
    assert gaps(result) == {"lost-events"}
    assert last_account(result)["kernel"]["forks"] == forks
    require_receipt_of_the_gap(sandbox, result)


@as_root
def test_a_policy_that_insists_ends_the_run_in_the_middle(sandbox: Sandbox, victims: Path) -> None:
    """The gap is found while the agent sleeps."""
    forks = loader.EVENT_BYTES // 64 + 500
    rules = policy(sandbox, victims, "on_witness_gap: deny\n")
    command = ["bash", "-c", f"{victims}/witness_load storm {forks}; exec sleep 300"]
    result = InTheMiddle(sandbox, command, rules).finish(unread=True)
    assert result.status == 125
    assert result.records[-1]["signal"] == "SIGKILL"
    assert gaps(result) == {"lost-events"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may load bpf programs")
@pytest.mark.parametrize("tracepoint", ["sys_enter", "sys_exit"])
def test_a_program_that_stops_is_a_gap(tmp_path: Path, tracepoint: str) -> None:
    found, told = threading.Event(), []

    def on_gap(code: str, detail: str) -> None:
        told.append(code)
        found.set()

    child = os.fork()  # before there are links that it would hold open
    if child == 0:
        signal.pause()
    loaded = loader.load(str(tmp_path))
    written: list[Any] = []
    witness = Witness(loaded, lambda: Books(0, 0, 0, 0, 0), written.append, on_gap, lambda error: None)
    try:
        witness.start(child)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, loaded.links[tracepoint])  # the link's last descriptor closes: the kernel detaches it
        assert found.wait(DEADLINE)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    witness.finish()
    assert told[0] == "stopped"
    assert written[0] == {"type": "witness", "state": "begins"}
    assert {"type": "gap", "code": "stopped"}.items() <= written[1].items()


def test_without_the_right_the_log_says_so(sandbox: Sandbox, victims: Path) -> None:
    if sandbox.uid == 0:
        result = sandbox.run(["true"])
        assert [r["state"] for r in result.records if r["type"] == "witness"] == ["begins", "ends"]
        return
    result = sandbox.run(["true"])
    assert (result.status, [r["detail"] for r in result.records if r.get("code") == "no-witness"]) == (
        0,
        ["only root may load bpf programs"],
    )
    refused = sandbox.run(["true"], policy(sandbox, victims, "on_witness_gap: deny\n"))
    assert refused.status == 125
    assert "the policy asks for a witness" in refused.stderr


RACED = """
import os, threading, time
end = time.monotonic() + 2
def make(flags):
    while time.monotonic() < end:
        for what in (lambda: os.close(os.open("raced", os.O_CREAT | os.O_WRONLY | flags)), lambda: os.unlink("raced")):
            try: what()
            except OSError: pass
threads = [threading.Thread(target=make, args=(flags,)) for flags in (os.O_SYNC, 0, os.O_SYNC, 0)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@as_root
def test_a_call_that_is_judged_anew_is_counted_once(sandbox: Sandbox) -> None:
    """A name that is missing when it is looked at and there when it is created: by broker (O_SYNC) and receiver."""
    (sandbox.workspace / "raced.py").write_text(RACED)
    for _ in range(8):
        result = sandbox.run([SYSTEM_PYTHON, "raced.py"])
        account = last_account(result)["log"]
        assert gaps(result) == set(), result.stderr
        assert account["recorded"] + account["unjudged"] == account["received"]
        if len([r for r in result.records if r["type"] == "decision"]) > account["recorded"]:
            return
    pytest.fail("no call was judged twice")
