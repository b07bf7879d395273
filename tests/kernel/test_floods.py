"""Many at once, and some that wait: every call is decided, none is lost, nobody waits for somebody else's call."""

import contextlib
import errno
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Result, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

DEADLINE = 60.0
CHILDREN = 200
TASKS = 8 + CHILDREN
OPENS = 8 * 250 + CHILDREN * 10  # of one flood, as flood_open.c makes them
PROMPTLY = 50_000  # microseconds an open may take while somebody else waits
PROBED, CONTROLLED = 2000, 500  # milliseconds
# Microseconds; one that is delayed takes as long as the other waits, however busy the machine is.
DELAYED = PROBED * 1000 // 4
ATTEMPTS = 5  # on a machine that others use as well


class Running:
    """A supervised or native program that is talked to line by line."""

    def __init__(self, sandbox: Sandbox, argv: list[str]) -> None:
        self.process = sandbox.popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._rest = ""

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout
        end = time.monotonic() + DEADLINE
        while "\n" not in self._rest:
            ready = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]
            data = os.read(self.process.stdout.fileno(), 4096).decode() if ready else ""
            assert data, f"no line, but {self._rest!r}: {self.end()}"
            self._rest += data
        line, _, self._rest = self._rest.partition("\n")
        return line

    def go_on(self) -> None:
        assert self.process.stdin
        os.write(self.process.stdin.fileno(), b"\n")

    def end(self) -> Result:
        try:
            out, err = self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
        return Result(self.process.returncode, out, err, None)


def _descriptors(pid: int) -> int:
    """How many descriptors the supervisor holds.

    It lets nobody of the same user look; then the size of its table, a power of two that never shrinks, must do.
    """
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("FDSize:")[2].split()[0])


@pytest.fixture
def files(sandbox: Sandbox) -> Path:
    directory = sandbox.workspace / "files"
    directory.mkdir()
    for number in range(16):
        (directory / f"f{number}").write_text(chr(ord("a") + number))
    return directory


def _policy(sandbox: Sandbox, victims: Path, *ports: int) -> Path:
    return sandbox.policy(f"""extends: [base]
allow:
  - id: programs
    exec: {{paths: ['{victims}/flood_*']}}
  - id: files
    file: {{do: [read, list, write], paths: ['{sandbox.workspace}/**']}}
  - id: sockets
    unix: {{do: [connect], paths: ['{sandbox.workspace}/**']}}
  - id: servers
    connect: {{addresses: [127.0.0.1], ports: [{", ".join(map(str, ports)) or 1}]}}
""")


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_threads_and_children_open_at_once(sandbox: Sandbox, victims: Path, files: Path) -> None:
    secret = sandbox.root / "secret"
    secret.write_text("s3cret")
    port = _unused_port()
    command = [str(victims / "flood_open"), str(files), str(secret), str(port)]
    agent = Running(sandbox, sandbox.argv(command, _policy(sandbox, victims, port)))
    held = []
    for number in (1, 2):
        found = re.fullmatch(rf"flood {number} opened (\d+) failed (\d+) descriptors (\d+) (\d+)", line := agent.line())
        assert found, line
        assert (int(found[1]), int(found[2])) == (OPENS, 0)
        assert found[3] == found[4], "descriptors leaked in the agent"
        held.append(_descriptors(agent.process.pid))
        agent.go_on()
    result = agent.end()
    assert result.status == 0, result.stderr
    # What each of its threads keeps for a while comes and goes; a leak is one for each of the calls of a kind.
    assert held[1] - held[0] < CHILDREN, "descriptors leaked in the supervisor"
    (directory,) = sandbox.runs()
    records = Result(0, "", "", directory).records
    opened = [r for r in records if r.get("target", "").startswith(f"{files}/") and r["syscall"] in ("open", "openat")]
    assert len(opened) == 2 * OPENS
    assert {(r["verdict"], r["action"]) for r in opened} == {("ALLOW", "fd")}
    assert len({r["tid"] for r in opened}) >= TASKS
    assert sum(r.get("target") == str(secret) and r["verdict"] == "DENY" for r in records) == 2 * CHILDREN * 2
    assert sandbox.verify(directory).returncode == 0


def test_natively_the_flood_is_the_same(sandbox: Sandbox, victims: Path, files: Path) -> None:
    """The control: its calls succeed and fail as it expects, but for those that only a policy refuses."""
    agent = Running(sandbox, [str(victims / "flood_open"), str(files), "/nonexistent/secret", str(_unused_port())])
    for number in (1, 2):
        assert agent.line().startswith(f"flood {number} opened {OPENS} failed 200 ")
        agent.go_on()
    assert agent.end().status == 0


class Waits:
    """Targets at which a call waits until somebody here lets it go on."""

    def __init__(self, sandbox: Sandbox, stack: contextlib.ExitStack) -> None:
        self._sandbox, self._stack = sandbox, stack
        self._servers: list[socket.socket] = []

    def target(self, kind: str) -> str:
        match kind:
            case "fifo":
                return self._fifo()
            case "connect-tcp":
                return self._full(self._tcp(0))
            case "connect-unix":
                return self._full(self._unix(0))
            case "send-tcp":
                return _name(self._tcp(8))
            case "send":
                return _name(self._unix(8))
            case _:
                return "-"

    def complete(self, kind: str, target: str) -> None:
        """Let the call that waits at a target go on to its end."""
        if kind == "fifo":
            self._stack.enter_context(open(target, "wb"))  # opens when the other side does
        elif kind == "send":
            connection = self._stack.enter_context(self._servers[-1].accept()[0])
            connection.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while connection.recv(1 << 20):
                    pass
        else:
            self._stack.enter_context(self._servers[-1].accept()[0])

    def _fifo(self) -> str:
        path = self._sandbox.workspace / f"fifo-{len(list(self._sandbox.workspace.iterdir()))}"
        os.mkfifo(path)
        os.chown(path, self._sandbox.uid, self._sandbox.uid)
        return str(path)

    def _tcp(self, backlog: int) -> socket.socket:
        return self._keep(socket.create_server(("127.0.0.1", 0), backlog=backlog))

    def _unix(self, backlog: int) -> socket.socket:
        path = self._sandbox.workspace / f"socket-{len(self._servers)}"
        server = self._keep(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        os.chown(path, self._sandbox.uid, self._sandbox.uid)
        server.listen(backlog)
        return server

    def _keep(self, server: socket.socket) -> socket.socket:
        self._servers.append(self._stack.enter_context(server))
        return server

    def _full(self, server: socket.socket) -> str:
        """Fill a server's queue, so that the next one who connects has to wait."""
        while True:
            client = self._stack.enter_context(socket.socket(server.family))
            client.setblocking(False)
            code = client.connect_ex(server.getsockname())
            if code == errno.EAGAIN:
                return _name(server)
            if code == errno.EINPROGRESS and not select.select([], [client], [], 0.2)[1]:
                client.close()  # it would be in line before the agent
                return _name(server)


def _name(server: socket.socket) -> str:
    name = server.getsockname()
    return name if isinstance(name, str) else str(name[1])


@pytest.fixture
def waits(sandbox: Sandbox) -> Iterator[Waits]:
    with contextlib.ExitStack() as stack:
        yield Waits(sandbox, stack)


WAITS = ("fifo", "connect-tcp", "connect-unix", "send-pair", "send-tcp")


@pytest.mark.parametrize("kind", WAITS)
def test_one_thread_that_waits_delays_no_other(
    sandbox: Sandbox, victims: Path, files: Path, waits: Waits, kind: str
) -> None:
    """The slowest of all opens while another thread's call waits is served promptly."""
    target = waits.target(kind)
    policy = _policy(sandbox, victims, *([int(target)] if target.isdigit() else []))
    control, _ = _probe(sandbox, victims, policy, files, "none", "-", CONTROLLED)
    measured: list[int] = []
    while len(measured) < ATTEMPTS and min(measured, default=PROMPTLY + 1) > PROMPTLY:
        slowest, waited = _probe(sandbox, victims, policy, files, kind, target, PROBED)
        assert waited, "the call did not wait"
        measured.append(slowest)
    print(f"{kind}: slowest open in us: {measured}; when nobody waits: {control}")
    assert min(measured) <= DELAYED


def _probe(
    sandbox: Sandbox, victims: Path, policy: Path, files: Path, kind: str, target: str, milliseconds: int
) -> tuple[int, bool]:
    command = [str(victims / "flood_wait"), kind, str(files / "f0"), target, str(milliseconds)]
    result = sandbox.run(command, policy)
    found = re.search(r"slowest (\d+) opens (\d+) waited ([01])", result.stdout)
    assert found, f"{result.status} {result.stdout} {result.stderr[-2000:]}"
    assert int(found[2]) > milliseconds / 10  # one that was delayed would have to wait for all of them
    assert result.directory
    checked = sandbox.verify(result.directory)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return int(found[1]), found[3] == "1"


def test_a_socket_that_is_made_to_wait_after_the_look_delays_nobody(
    sandbox: Sandbox, victims: Path, files: Path, waits: Waits
) -> None:
    command = [str(victims / "flood_toggle"), str(files / "f0"), waits.target("connect-unix")]
    result = sandbox.run(command, _policy(sandbox, victims), timeout=20)
    found = re.fullmatch(r"slowest (\d+) opens (\d+)\n", result.stdout)
    assert found, f"{result.status} {result.stdout} {result.stderr[-2000:]}"
    assert int(found[2]) > 100
    print("slowest open in us:", found[1])


def test_a_crowd_that_waits_leaves_room_for_others(sandbox: Sandbox, victims: Path, files: Path, waits: Waits) -> None:
    """More calls wait than the supervisor has threads for; some are refused, but nobody else's open is."""
    command = [str(victims / "flood_crowd"), str(files / "f0"), waits.target("fifo"), "700"]
    supervised = sandbox.argv(command, _policy(sandbox, victims))
    # Most systems start a program with this limit, though it may raise it.
    agent = Running(sandbox, ["/bin/sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", *supervised])
    found = re.fullmatch(r"slowest (\d+) opens (\d+) failed (\d+) waiting (\d+)", agent.line())
    result = agent.end()
    assert found, f"{result.status} {result.stdout} {result.stderr[-2000:]}"
    print(found[0])
    assert int(found[2]) > 100
    assert int(found[3]) == 0
    assert int(found[4]) > 400
    assert result.status == 0, result.stderr
    (directory,) = sandbox.runs()
    records = Result(0, "", "", directory).records
    # Those that still waited when the agent ended were decided as well, if the supervisor had heard of them by then.
    assert int(found[4]) <= sum(r.get("target") == command[2] for r in records) <= 700
    assert sandbox.verify(directory).returncode == 0


SIGNALS = [
    pytest.param(kind, who, id=f"{kind}-{who}")
    for kind in ("fifo", "connect-tcp", "connect-unix", "send")
    for who in ("process", "thread")
]


@pytest.mark.every_tier
@pytest.mark.parametrize(("kind", "who"), SIGNALS)
@pytest.mark.parametrize("restart", [False, True], ids=["interrupts", "restarts"])
def test_a_signal_reaches_a_call_that_waits(
    sandbox: Sandbox, victims: Path, waits: Waits, kind: str, who: str, restart: bool
) -> None:
    """As natively: the handler runs at once; then the call fails with EINTR, or goes on until it completes."""
    native = _signalled(sandbox, victims, waits, kind, who, restart, _as_it_is)
    assert native == ["signal", "returned OK" if restart else "returned EINTR"]

    def supervised(command: list[str], target: str) -> list[str]:
        return sandbox.argv(command, _policy(sandbox, victims, *([int(target)] if target.isdigit() else [])))

    assert _signalled(sandbox, victims, waits, kind, who, restart, supervised) == native


def _as_it_is(command: list[str], target: str) -> list[str]:
    return command


def _signalled(
    sandbox: Sandbox,
    victims: Path,
    waits: Waits,
    kind: str,
    who: str,
    restart: bool,
    argv: Callable[[list[str], str], list[str]],
) -> list[str]:
    target = waits.target(kind)
    command = [str(victims / "flood_signal"), kind, str(int(restart)), who, target]
    agent = Running(sandbox, argv(command, target))
    lines = [agent.line()]
    if restart:
        waits.complete(kind, target)
    lines.append(agent.line())
    result = agent.end()
    assert result.status == 0, result.stderr
    return lines
