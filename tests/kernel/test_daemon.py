"""The daemon: agents it hosts, what ends with whom, and what the next daemon finds."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from helm_sentry.rpc import sentry_pb2 as pb
from tests.kernel.conftest import NOBODY, PYTHON
from tests.kernel.daemons import ONCE, PATIENCE, Daemon, until

pytestmark = pytest.mark.kernel

FACTS = """
import json, os, sys
os.umask(mask := os.umask(0))
print(json.dumps([os.getcwd(), mask, os.environ.get("LANG"), os.environ.get("SECRET"), sys.stdin.read()]))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""
SLEEPER = "import signal, sys; print('ready', flush=True); signal.pause()"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_hosted_run_is_transparent(daemon):
    assert daemon.command("ps").stdout == ""
    sandbox = daemon.sandbox
    process = sandbox.popen(
        sandbox.argv([PYTHON, "-c", FACTS]),
        env=sandbox.environment() | {"SECRET": "x"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        umask=0o027,
    )
    out, err = process.communicate("words", timeout=PATIENCE)
    assert json.loads(out) == [str(sandbox.workspace), 0o027, "C.UTF-8", None, "words"]
    assert process.returncode == 7
    assert "to stderr" in err
    (directory,) = sandbox.runs()
    assert sandbox.verify(directory).returncode == 0


def test_it_is_a_child_of_the_daemon_and_alone_is_not(daemon):
    hosted, alone = daemon.agent(), daemon.agent(options=("--alone",))
    runs = {about["run"]: about for about in map(json.loads, daemon.command("ps", "--json").stdout.splitlines())}
    assert set(runs) == {hosted.run, alone.run}
    parents = {run: parent_of(about["supervisor"]) for run, about in runs.items()}
    assert parents == {hosted.run: daemon.process.pid, alone.run: os.getpid()}
    assert {each.id for each in daemon.stub.List(pb.ListRequest()).runs} == set(runs)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_signals_reach_the_agent_and_its_end_is_repeated(daemon):
    agent = daemon.agent(code=SLEEPER)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.finish()[0] == -signal.SIGTERM
    assert agent.sandbox.verify(agent.directory).returncode == 0


@ONCE
def test_a_hangup_has_a_watched_policy_read_again(daemon, tmp_path):
    (secret := daemon.sandbox.root / "secret").write_text("text")
    policy = daemon.sandbox.policy("extends: [default]\n", name="watched")
    agent = daemon.agent(policy, options=("--watch",))
    assert parent_of(daemon.shown(agent.run)["supervisor"]) == daemon.process.pid
    assert agent.read(secret) == "Permission denied"
    policy.write_text(policy.read_text() + f"allow: [{{id: x, file: {{do: [read], paths: [{secret}]}}}}]\n")
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: agent.read(secret) == "text")
    agent.process.send_signal(signal.SIGHUP)  # nothing has changed now: it is the signal that has the file read
    until(lambda: "SIGHUP" in [record["by"] for record in agent.records("policy")])
    assert agent.finish()[0] == 0


@ONCE
def test_a_program_that_is_not_there_is_127(daemon):
    process = daemon.sandbox.popen(daemon.sandbox.argv(["no-such-program"]), stdin=subprocess.DEVNULL)
    assert process.wait(PATIENCE) == 127


def test_a_run_ends_with_its_caller(daemon):
    agent = daemon.agent()
    main = daemon.shown(agent.run)["agent"]
    assert alive(main)
    agent.process.kill()
    until(lambda: daemon.shown(agent.run)["state"] == "sealed")
    assert not alive(main)
    assert [r["code"] for r in agent.records("notice") if r["code"] == "caller-gone"] == ["caller-gone"]


def test_the_end_of_a_supervisor_is_the_end_of_its_agent_alone(daemon):
    first, second = daemon.agent(), daemon.agent()
    shown = daemon.shown(first.run)
    os.kill(shown["supervisor"], signal.SIGKILL)
    status, _, err = first.finish()
    assert (status, "the supervisor was killed" in err) == (125, True)
    until(lambda: not alive(shown["agent"]))
    assert daemon.shown(first.run)["state"] == "ended without a seal"
    assert second.read(Path("/etc/hostname")) == Path("/etc/hostname").read_text().strip()
    assert second.finish()[0] == 0


def test_a_dead_daemon_frees_no_agent_and_the_next_finds_them(daemon):
    stays, goes = daemon.agent(), daemon.agent()
    lost = daemon.shown(goes.run)
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    os.kill(lost["supervisor"], signal.SIGKILL)
    until(lambda: not alive(lost["agent"]))
    assert stays.read(Path("/etc/shadow")) == "Permission denied"
    daemon.start()
    assert f"run {goes.run} ended without a seal" in daemon.log.read_text()
    assert f"found runs that go on: {stays.run}" in daemon.log.read_text()
    assert [each.id for each in daemon.stub.List(pb.ListRequest()).runs] == [stays.run]
    assert "helm_sentry_unsealed_runs_total 1.0" in scrape(daemon)
    daemon.stub.Kill(pb.KillRequest(run=stays.run))
    assert stays.finish()[0] == -9
    assert stays.sandbox.verify(stays.directory).returncode == 0


@ONCE
def test_what_a_killed_supervisor_leaves_is_found_at_once(daemon):
    agent, other = daemon.agent(), daemon.agent()
    os.kill(daemon.shown(agent.run)["supervisor"], signal.SIGKILL)
    agent.finish()
    until(lambda: f"run {agent.run} ended without a seal" in daemon.log.read_text())
    assert os.listdir(daemon.state / "control") == [other.run]
    assert "helm_sentry_unsealed_runs_total 1.0" in scrape(daemon)


def test_a_daemon_that_ends_seals_what_it_hosts(daemon):
    agent = daemon.agent()
    assert daemon.stop() == 0
    assert agent.finish()[0] == -9
    assert agent.sandbox.verify(agent.directory).returncode == 0
    assert sorted(os.listdir(daemon.directory)) == ["lock"]


@ONCE
def test_there_is_one_daemon_a_state_directory(daemon):
    second = daemon.command("daemon")
    assert (second.returncode, "already" in second.stderr) == (125, True)


@ONCE
def test_a_detached_run_leaves_its_output(daemon):
    code = "import sys\nfor n in range(3): print(n, flush=True)\nprint('wrong', file=sys.stderr)"
    begun = daemon.command("run", "--detach", "--quiet", "--", PYTHON, "-c", code)
    run = begun.stdout.strip()
    followed = daemon.command("logs", "-f", run)
    assert followed.stdout == "0\n1\n2\nwrong\n"
    assert daemon.shown(run)["state"] == "sealed"


@ONCE
def test_a_detached_run_that_cannot_begin_says_why(daemon):
    policy = daemon.sandbox.policy("allow: everything\n", name="bad")
    begun = daemon.command("run", "--detach", "--policy", str(policy), "--", PYTHON, "-c", "pass")
    assert (begun.returncode, begun.stdout, "bad.yaml:" in begun.stderr) == (125, "", True), begun
    missing = daemon.command("run", "--detach", "--", "no-such-program")
    assert "no such program" in missing.stderr
    (output, *_) = os.listdir(daemon.state / "output")
    assert daemon.command("logs", output).returncode == 0


@ONCE
def test_a_run_is_named_as_elsewhere_and_none_is_said(daemon):
    assert daemon.command("ps").stderr == "no run goes on\n"
    agent = daemon.agent()
    shown = daemon.command("ps").stdout
    assert (agent.run in shown, "policy default" in shown) == (True, True)
    assert daemon.command("policy", "freeze", "latest").returncode == 0
    assert daemon.command("kill", str(agent.directory)).returncode == 0
    agent.finish()
    gone = daemon.command("kill", "latest")
    assert (gone.returncode, gone.stderr) == (125, f"helm-sentry: no run `{agent.run}` goes on\n")
    assert "went to the one who started it" in daemon.command("logs", "-f", agent.run).stderr


@ONCE
def test_inspect_shows_the_policy_that_holds_now(daemon):
    agent = daemon.agent()
    assert daemon.shown(agent.run)["plan"]
    assert daemon.shown(agent.run)["policy"]["allow"]
    daemon.stub.Freeze(pb.FreezeRequest(run=agent.run))
    shown = daemon.shown(agent.run)
    assert (shown["policy"]["allow"], shown["epoch"], shown["frozen"]) == ([], 1, True)


@ONCE
def test_metrics_count_decisions_and_waiting_calls(daemon):
    agent = daemon.agent()
    agent.read(Path("/etc/shadow"))
    text = scrape(daemon)
    denied = next(line for line in text.splitlines() if agent.run in line and 'verdict="DENY"' in line)
    assert float(denied.split()[-1]) >= 1
    assert f'helm_sentry_waiting_approvals{{run="{agent.run}"}} 0.0' in text
    memory = next(line for line in text.splitlines() if agent.run in line and 'process="supervisor"' in line)
    assert float(memory.split()[-1]) > 1e6


def scrape(daemon: Daemon) -> str:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(daemon.directory / "metrics"))
        peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return peer.makefile().read()


def test_another_user_is_turned_away_from_every_socket(daemon):
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    for directory in (daemon.state, daemon.directory):
        directory.chmod(0o711)
    code = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
for path in sys.argv[2:]:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    try:
        peer.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
        print(peer.recv(99))
    except OSError:
        print(b"")
"""
    paths = [str(daemon.directory / name) for name in ("grpc", "runs", "metrics")]
    for path in paths:
        os.chmod(path, 0o666)

    def replies(uid: int) -> list[str]:
        command = [PYTHON, "-c", code, str(uid), *paths]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:3]

    assert "200 OK" in replies(daemon.sandbox.uid)[2]
    assert replies(NOBODY - 1) == ["b''"] * 3
    assert daemon.log.read_text().count("not the user of this run") == 3


# Asks a run about itself, and the daemon for its metrics and a health check; prints how much was answered.
ASKS = """
import socket, sys
for path, words in zip(sys.argv[1:], (b'{"do": "about"}\\n', b"GET /metrics HTTP/1.0\\r\\n\\r\\n", b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    try:
        peer.sendall(words)
        print(len(peer.recv(4096)))
    except ConnectionError:
        print(0)
"""


def test_the_agent_of_another_state_directory_is_turned_away(daemon):
    """Its policy lets it connect, and its supervisor, which does, is of the right user."""
    victim, sandbox = daemon.agent(), daemon.sandbox
    paths = [daemon.state / "control" / victim.run, daemon.directory / "metrics", daemon.directory / "grpc"]
    command = [PYTHON, "-c", ASKS, *map(str, paths)]
    assert min(map(int, sandbox.native(command).stdout.split())) > 0  # the control

    rule = f"extends: [default]\nallow: [{{id: x, unix: {{do: [connect], paths: ['{daemon.state}/**']}}}}]\n"
    policy = sandbox.policy(rule, name="sockets")
    environment = sandbox.environment() | {"XDG_STATE_HOME": str(sandbox.root / "home" / "state")}
    process = sandbox.popen(
        sandbox.argv(command, policy, ("--alone",)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert out.split() == ["0"] * 3, err
    victim.finish()
    (refused,) = [r["detail"] for r in victim.records("notice") if r["code"] == "control-refused"]
    assert "the supervisor of another agent" in refused
    assert daemon.log.read_text().count("the supervisor of another agent") == 2


def test_a_caller_that_goes_as_the_agent_ends_leaves_a_sealed_run(daemon):
    """The agent ends by itself at the end of its input, which comes with the end of the caller."""
    for _ in range(5):
        agent = daemon.agent()
        agent.process.kill()
        agent.process.stdin.close()
        agent.process.stdin = None
        until(lambda run=agent.run: daemon.shown(run)["state"] == "sealed")


@ONCE
def test_a_stopped_job_holds_nobody_up(daemon):
    stopped, other = daemon.agent(options=("--alone",)), daemon.agent()
    supervisor = daemon.shown(stopped.run)["supervisor"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        assert [each.id for each in daemon.stub.List(pb.ListRequest(), timeout=PATIENCE).runs] == [other.run]
        assert f'run="{other.run}"' in scrape(daemon)
        began = time.monotonic()
        assert [json.loads(line)["run"] for line in daemon.command("ps", "--json").stdout.splitlines()] == [other.run]
        assert daemon.command("approvals", "list").stderr == "nothing waits\n"
        assert time.monotonic() - began < 20  # not the half minute that one run may take
        daemon.stub.Freeze(pb.FreezeRequest(run=other.run), timeout=PATIENCE)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert stopped.finish()[0] == 0
