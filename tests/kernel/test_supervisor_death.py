"""A supervisor that dies leaves the agent with less, never more.

Killed at any moment: the agent's whole tree is gone within two seconds, and all that took effect until then is in the
log, which verifies. A process of the tree cannot hide: whoever holds its standard output keeps the pipe open.
"""

import errno
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.intercept.process_tree import stat_fields
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run
from tests.kernel.conftest import TIER, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

PROMPTLY = 2.0  # seconds in which a tree must be gone
DEADLINE = 30.0
SHAPES = ("daemons", "headless", "comets")
Process = tuple[int, bytes]  # id and start time: ids come again, pairs do not


def _stat(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the state on; None for a process of which nothing runs any more."""
    try:
        fields = stat_fields(pid)
    except ProcessLookupError:
        return None
    # A first thread that has ended is a zombie while others go on.
    return None if len(fields) < 20 or (fields[0] in (b"Z", b"X") and int(fields[17]) < 2) else fields


def tree(root: int) -> dict[int, Process]:
    """Every process beneath one, by id."""
    stats = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))}
    found: dict[int, Process] = {}
    frontier = {root}
    while frontier:
        frontier = {pid for pid, stat in stats.items() if int(stat[1]) in frontier}
        found |= {pid: (pid, stats[pid][19]) for pid in frontier}
    return found


def alive(process: Process) -> bool:
    stat = _stat(process[0])
    return stat is not None and stat[19] == process[1]


def children(parent: int) -> list[int]:
    """The children of a process, the oldest first."""
    stats = {pid: stat for pid in tree(parent) if (stat := _stat(pid)) and int(stat[1]) == parent}
    return sorted(stats, key=lambda pid: (int(stats[pid][19]), pid))  # the clock's ticks are long


def eldest(parent: int) -> int:
    """The first child of a process, waited for: the supervisor's is the guardian, the guardian's the main program."""
    found: list[int] = []

    def look() -> bool:
        found[:] = children(parent)
        return bool(found)

    until(look)
    return found[0]


def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Poll until something is so; fail if it does not come to be."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        _pause(0.005)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@dataclass
class Agent:
    """A running `death_agent`, and everything it can leave a trace in."""

    process: subprocess.Popen[str]
    directory: Path
    server: socket.socket
    errors: Path
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.strip())
            self.ready.set()

    def wait_ready(self) -> None:
        assert self.ready.wait(DEADLINE), self.errors.read_text()

    def assert_gone(self, before: list[Process], since: float) -> None:
        """Fail unless the whole tree ends in time: those known by name, and whoever else holds the pipe."""
        self.reader.join(max(0.0, since + PROMPTLY - time.monotonic()))
        taken = time.monotonic() - since
        assert not self.reader.is_alive(), f"somebody holds standard output after {taken:.2f} s"
        until(lambda: not any(alive(process) for process in before), since + PROMPTLY - time.monotonic())

    @property
    def created(self) -> set[str]:
        return {str(path) for path in self.directory.iterdir()}

    @property
    def ran(self) -> set[str]:
        return {line.split()[1] for line in self.lines if line.startswith("ran ")}

    def accepted(self) -> int:
        """Count the connections that arrived; each is taken from the queue, so ask once."""
        self.server.setblocking(False)
        count = 0
        with suppress(BlockingIOError):
            while True:
                self.server.accept()[0].close()
                count += 1
        return count


class Stage:
    """Starts agents, supervised or not, and cleans up after those that survive."""

    def __init__(self, sandbox: Sandbox, victims: Path) -> None:
        self.sandbox, self._victims = sandbox, victims
        self._agents: list[Agent] = []

    def start(self, shape: str = "daemons", *, supervised: bool = True, **options: Any) -> Agent:
        number = len(self._agents)
        directory = self.sandbox.workspace / f"acts-{number}"
        directory.mkdir()
        os.chown(directory, self.sandbox.uid, self.sandbox.uid)
        server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        port = server.getsockname()[1]
        command = [f"{self._victims}/death_agent", str(directory), str(port), f"{self._victims}/death_marker", shape]
        argv = self.sandbox.argv(command, self._policy(port)) if supervised else command
        errors = self.sandbox.root / f"stderr-{number}"
        with errors.open("w") as stderr:
            process = self.sandbox.popen(argv, stdout=subprocess.PIPE, stderr=stderr, **options)
        agent = Agent(process, directory, server, errors)
        self._agents.append(agent)
        return agent

    def _policy(self, port: int) -> Path:
        return self.sandbox.policy(f"""extends: [base]
allow:
  - id: programs
    exec: {{paths: ['{self._victims}/death_*']}}
  - id: traces
    file: {{do: [write, create], paths: ['{self.sandbox.workspace}/**']}}
  - id: server
    connect: {{addresses: [127.0.0.1], ports: [{port}]}}
""")

    def survivors(self) -> list[int]:
        """Processes that have a directory of this stage in their arguments."""
        found = []
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and b"%b/acts-" % os.fsencode(self.sandbox.workspace) in _arguments(int(name)):
                    found.append(int(name))
        return found

    def _end_survivors(self) -> bool:
        left = self.survivors()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def end(self) -> None:
        for agent in self._agents:
            agent.process.kill()
            agent.process.wait()
        until(self._end_survivors)
        for agent in self._agents:
            agent.reader.join(DEADLINE)
            agent.server.close()
            assert agent.process.stdout
            agent.process.stdout.close()


def _arguments(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


@pytest.fixture
def stage(sandbox: Sandbox, victims: Path) -> Iterator[Stage]:
    made = Stage(sandbox, victims)
    yield made
    made.end()


def _log(directory: Path) -> list[dict[str, Any]]:
    """The whole records of a log; the last line may be torn."""
    file = directory / "audit.jsonl"
    text = file.read_bytes() if file.exists() else b""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def assert_recorded(agent: Agent, directory: Path) -> None:
    """Fail unless every act that took effect was allowed in the log."""
    allowed = [record for record in _log(directory) if record.get("verdict") == "ALLOW"]
    created = {record["target"] for record in allowed if "file.create" in record["ops"]}
    ran = {record["argv"][1] for record in allowed if len(record.get("argv", ())) > 1}
    assert agent.created <= created
    assert agent.ran <= ran
    assert agent.accepted() <= sum("net.connect" in record["ops"] for record in allowed)


def _new_run(stage: Stage, before: set[Path]) -> Path | None:
    return next(iter(set(stage.sandbox.runs()) - before), None)


def test_killed_at_random_moments(stage: Stage) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    ended: list[tuple[Agent, set[str]]] = []
    effects = started = 0
    moments = int(os.environ.get("HELM_SENTRY_TEST_MOMENTS", "100"))
    for moment in range(moments if stage.sandbox.uid == 0 else moments // 5):
        runs = set(stage.sandbox.runs())
        agent = stage.start(SHAPES[moment % 5] if moment % 5 < 3 else "daemons")
        if moment % 4:
            agent.wait_ready()
        _pause(chance.uniform(0, 0.2 if moment % 4 else 0.4))
        before = list(tree(agent.process.pid).values())
        agent.process.kill()
        killed = time.monotonic()
        agent.process.wait()
        agent.assert_gone(before, killed)
        directory = _new_run(stage, runs)
        if agent.ready.is_set() or (directory and _log(directory)):
            assert directory
            verify_run(read_run(str(directory)), allow_unsealed=True)
            assert_recorded(agent, directory)
            started += 1
        else:
            assert not agent.created
        effects += len(agent.created) + len(agent.ran)
        ended.append((agent, agent.created))
        if directory and moment % 10 == 9:
            checked = stage.sandbox.verify(directory, "--allow-unsealed")
            assert checked.returncode == 0, checked.stdout + checked.stderr
            assert stage.sandbox.verify(directory).returncode == 121
    print(f"{started} of {len(ended)} agents had started; {effects} effects")
    assert started >= len(ended) * 3 // 4
    assert effects > 2 * started  # on a machine with nothing else to do, twenty times as many
    assert [agent.created for agent, _ in ended] == [created for _, created in ended], "something went on"


def test_without_a_supervisor_daemons_go_on(stage: Stage) -> None:
    """The control: the traces show what is left behind, when something is."""
    agent = stage.start(supervised=False)
    agent.wait_ready()
    until(lambda: len(stage.survivors()) > 3)
    agent.process.kill()
    agent.process.wait()
    created = len(agent.created)
    until(lambda: len(agent.created) >= created + 10)
    assert agent.reader.is_alive()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_killed_guardian_ends_the_run(stage: Stage, shape: str) -> None:
    agent = stage.start(shape)
    agent.wait_ready()
    (directory,) = stage.sandbox.runs()
    guardian = eldest(agent.process.pid)
    before = list(tree(agent.process.pid).values())
    os.kill(guardian, signal.SIGKILL)
    killed = time.monotonic()
    agent.assert_gone(before, killed)
    assert agent.process.wait(DEADLINE) == 125
    assert "the guardian was killed" in agent.errors.read_text()
    verify_run(read_run(str(directory)), allow_unsealed=True)
    assert_recorded(agent, directory)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_agent_that_dies_takes_its_daemons_along(stage: Stage, shape: str) -> None:
    agent = stage.start(shape)
    agent.wait_ready()
    (directory,) = stage.sandbox.runs()
    _await_daemons(agent)
    before = list(tree(agent.process.pid).values())
    os.kill(eldest(eldest(agent.process.pid)), signal.SIGKILL)
    killed = time.monotonic()
    agent.assert_gone(before, killed)
    assert agent.process.wait(DEADLINE) == -signal.SIGKILL
    checked = stage.sandbox.verify(directory)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert_recorded(agent, directory)
    assert any("process.outlive" in record.get("ops", ()) for record in _log(directory))


def test_the_whole_job_killed_at_once(stage: Stage) -> None:
    """`kill -9 %1` in a shell reaches the supervisor and the agent; daemons left the group, and end all the same."""
    agent = stage.start(start_new_session=True)
    agent.wait_ready()
    _await_daemons(agent)
    before = list(tree(agent.process.pid).values())
    os.killpg(agent.process.pid, signal.SIGKILL)
    killed = time.monotonic()
    agent.process.wait()
    agent.assert_gone(before, killed)


def test_supervisor_and_guardian_killed_together(stage: Stage) -> None:
    """Nobody is left to end the tree: its main program dies with the guardian, the rest can do nothing more."""
    agent = stage.start()
    agent.wait_ready()
    (directory,) = stage.sandbox.runs()
    _await_daemons(agent)
    supervisor, guardian = agent.process.pid, eldest(agent.process.pid)
    main = tree(supervisor)[eldest(guardian)]
    everybody = list(tree(guardian).values())
    for pid in (supervisor, guardian):  # neither is to see the other die
        os.kill(pid, signal.SIGSTOP)
    for pid in (guardian, supervisor):
        os.kill(pid, signal.SIGKILL)
    agent.process.wait()
    powerless = {f"failed {call} {errno.ENOSYS}" for call in ("open", "connect", "exec")}
    if "ptrace" in TIER:  # it dies with its tracer, all of it
        until(lambda: not any(map(alive, everybody)))
    else:
        until(lambda: powerless <= set(agent.lines))
    assert not alive(main)
    assert_recorded(agent, directory)
    assert {line for line in agent.lines if line.startswith("failed")} <= powerless


def _await_daemons(agent: Agent) -> None:
    """Wait until some of the tree live in sessions of their own."""
    until(lambda: len({stat[3] for pid in tree(agent.process.pid) if (stat := _stat(pid))}) > 3)
