"""A second thread rewrites an argument between the supervisor's look and the kernel's.

What was judged is what is used: the race is lost every time, ten seconds long, over every kind of argument. The same
program against a supervisor that checks and then continues (`naive_supervisor.py`) wins at once.
"""

import contextlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kernel.conftest import Result, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

FILES = ("open", "openat2", "openat2-how", "rename-old", "rename-new", "link-old", "link-new")
STRAYING = ("chdir", "open-path")  # carried out by the kernel, looked at afterwards
PROGRAMS = ("execve", "execve-thread")
SOCKETS = ("connect", "sendto", "sendmsg")
KINDS = FILES + STRAYING + PROGRAMS + SOCKETS
RACED_FOR = {kind: 1500 if kind in PROGRAMS else 640 for kind in KINDS}  # milliseconds; a process takes longer
CONTROL = (300, 1000, 3000, 10_000)  # milliseconds; the control may take its time to win, not to lose
ROUNDS = 8
ENOUGH = 10  # answers of a kind, that the race may be said to have run
NAIVE = Path(__file__).with_name("naive_supervisor.py")


@dataclass
class Arena:
    """A good and a bad instance of everything that is raced for."""

    root: Path
    tcp: list[socket.socket]
    udp: list[socket.socket]
    accepted: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def good(self) -> Path:
        return self.root / "g"

    @property
    def bad(self) -> Path:
        return self.root / "b"

    @property
    def ports(self) -> list[int]:
        return [int(server.getsockname()[1]) for server in self.tcp]

    def arguments(self, kind: str) -> list[str]:
        return [str(port) for port in self.ports] if kind in SOCKETS else [str(self.good), str(self.bad)]

    def answer(self, index: int) -> None:
        """Say to whoever connects where they came out."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.tcp[index].accept()
                self.accepted[index] += 1
                with connection, contextlib.suppress(OSError):
                    connection.send(b"gb"[index : index + 1])
                    connection.recv(1)

    def received(self, index: int) -> int:
        """Count the datagrams that wait; the buffer may have dropped some, which is no matter."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.udp[index].recv(16):
                count += 1
        return count

    def damage(self) -> list[str]:
        """What of the forbidden things was touched."""
        found = {path.name: path.read_bytes() for path in self.bad.iterdir() if path.name != "program"}
        wanted = {"file": b"b", "token": b"b"}
        changed = [name for name in found.keys() | wanted if found.get(name) != wanted.get(name)]
        links = [name for name in wanted if name in found and (self.bad / name).stat().st_nlink != 1]
        written = [] if (self.good / "readable").read_bytes() == b"g" else ["readable"]
        arrived = [f"{n} connections" for n in self.accepted[1:] if n]
        arrived += [f"{n} datagrams" for n in [self.received(1)] if n]
        return changed + links + written + arrived


def _pair() -> tuple[list[socket.socket], list[socket.socket]]:
    """Two ports of loopback, each with a TCP and a UDP socket."""
    tcp: list[socket.socket] = []
    udp: list[socket.socket] = []
    while len(tcp) < 2:
        server, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        try:
            datagrams.bind(server.getsockname())
        except OSError:
            server.close()
            datagrams.close()
            continue
        datagrams.setblocking(False)
        tcp.append(server)
        udp.append(datagrams)
    return tcp, udp


@pytest.fixture
def arena(sandbox: Sandbox, victims: Path) -> Iterator[Arena]:
    root = sandbox.workspace / "arena"
    made = Arena(root, *_pair())
    for directory, letter, program in ((made.good, "g", "race_allowed"), (made.bad, "b", "race_forbidden")):
        directory.mkdir(parents=True)
        for name in ("file", "token", "readable", "item") if letter == "g" else ("file", "token"):
            (directory / name).write_text(letter)
        shutil.copy(victims / program, directory / "program")
    for path in (root, *root.rglob("*")):
        os.chown(path, sandbox.uid, sandbox.uid)
    threads = [threading.Thread(target=made.answer, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    yield made
    for server in made.tcp:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()
    for datagrams in made.udp:
        datagrams.close()


def _policy(sandbox: Sandbox, arena: Arena, victims: Path) -> Path:
    """Allow the good, block the bad; both programs lie within the Landlock floor, so only verification stops one."""
    return sandbox.policy(f"""extends: [base]
allow:
  - id: race
    exec: {{paths: ['{victims}/race_arguments', '{arena.root}/**']}}
  - id: good
    file: {{do: [read, list, write, create, delete, rename, link], paths: ['{arena.good}/**']}}
  - id: server
    connect: {{addresses: [127.0.0.1], ports: [{arena.ports[0]}]}}
block:
  - id: bad-program
    exec: {{paths: ['{arena.bad}/**']}}
  - id: bad
    file: {{do: [all], paths: ['{arena.bad}/**']}}
  - id: read-only
    file: {{do: [write, truncate], paths: ['{arena.good}/readable']}}
""")


def _counts(result: Result) -> dict[str, int]:
    found = re.search(r"good (\d+) bad (\d+) refused (\d+) killed (\d+)", result.stdout)
    assert found, f"status {result.status}\n{result.stdout}\n{result.stderr[-3000:]}"
    return dict(zip(("good", "bad", "refused", "killed"), map(int, found.groups()), strict=True))


def _caught(result: Result) -> list[str]:
    """Reasons for which a process was killed: the race was won in the kernel, and found out before it helped."""
    return [r["reason"] for r in result.records if r.get("action") == "kill"]


def _ran(kind: str, counts: dict[str, int]) -> bool:
    """Whether the arguments really changed under the calls; a machine that is busy may need another round."""
    if kind in PROGRAMS:  # few of them begin in the time; one that was killed had changed in the middle of the call
        return min(counts["good"], counts["killed"]) > 0
    both = min(counts["good"], counts["refused"] + counts["killed"]) >= ENOUGH
    return both and (counts["killed"] > 0 or kind not in STRAYING)


def test_the_races_last_ten_seconds() -> None:
    assert sum(RACED_FOR.values()) >= 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_no_race_is_won(sandbox: Sandbox, arena: Arena, victims: Path, kind: str) -> None:
    command = [str(victims / "race_arguments"), kind, str(RACED_FOR[kind]), *arena.arguments(kind)]
    policy = _policy(sandbox, arena, victims)
    total = dict.fromkeys(("good", "bad", "refused", "killed"), 0)
    for _ in range(ROUNDS):
        result = sandbox.run(command, policy)
        counts = _counts(result)
        print(kind, counts)
        assert counts["bad"] == 0
        assert arena.damage() == []
        assert "FORBIDDEN" not in result.stdout
        reason = "BUILTIN" if kind in STRAYING else "EXEC_MISMATCH"
        assert _caught(result) == [reason] * counts["killed"]
        assert result.directory is not None
        checked = sandbox.verify(result.directory)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        total = {name: total[name] + count for name, count in counts.items()}
        if _ran(kind, total):
            return
    pytest.fail("the race did not run")


def _python(sandbox: Sandbox) -> Path:
    """The interpreter that has the sandbox's own installation of helm_sentry."""
    return Path(sandbox.command[0]).parent / "python"


@pytest.mark.parametrize("kind", KINDS)
def test_a_supervisor_that_checks_and_continues_loses(sandbox: Sandbox, arena: Arena, victims: Path, kind: str) -> None:
    """The control: same program, same arena; only the supervisor differs."""
    script = shutil.copy(NAIVE, str(sandbox.root))
    forbidden = [str(arena.bad), str(arena.ports[1]), str(arena.good / "readable")]
    for milliseconds in CONTROL:
        race = [str(victims / "race_arguments"), kind, str(milliseconds), *arena.arguments(kind)]
        counts = _counts(sandbox.native([str(_python(sandbox)), script, *forbidden, "--", *race]))
        print(kind, counts)
        assert counts["refused"] > 0, "it checked nothing"
        if counts["bad"] or arena.damage():
            return
    pytest.fail("the control did not win")
