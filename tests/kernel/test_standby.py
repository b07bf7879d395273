"""Runs that are forked from a standby: the same as ordinary ones, or ordinary ones."""

import contextlib
import json
import os
import pty
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import NOBODY, PYTHON, TIER, Sandbox
from tests.kernel.daemons import ONCE, PATIENCE, until
from tests.kernel.test_daemon import alive, parent_of

pytestmark = pytest.mark.kernel

FACTS = """
import json, os, resource, signal, sys
os.umask(mask := os.umask(0))
ignored = [int(n) for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
print(json.dumps([os.getcwd(), mask, dict(os.environ), sys.argv, sys.stdin.read(), ignored, os.getuid(), os.getgroups(),
                  resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), sorted(os.sched_getaffinity(0))]))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""
WAITS = "import sys; print('ready', flush=True); print(sys.stdin.readline().strip() or 'end')"
INTERRUPTED = """
import select
try:
    print("ready", flush=True)
    while True: select.select([], [], [], 0.1)  # pause() would never hear of a signal that came right before it
except KeyboardInterrupt: print("interrupted", flush=True)
"""
DENIED = """
import sys
print("ready", flush=True)
sys.stdin.readline()
try: open("/etc/shadow")
except OSError as error: print(error.strerror, flush=True)
sys.stdin.readline()
"""


class Standby:
    """`helm-sentry standby`, and runs in a session without a terminal, as it is itself."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.log = sandbox, sandbox.root / "standby.log"
        self.processes: list[subprocess.Popen[str]] = []
        with open(self.log, "w") as log:
            self.process = sandbox.popen([*sandbox.command, "standby"], stderr=log, start_new_session=True)
        until(lambda: "ready" in self.log.read_text() or self.process.poll() is not None, "the standby is ready")
        assert self.process.poll() is None, self.log.read_text()

    @property
    def socket(self) -> Path:
        return self.sandbox.root / "state" / "helm-sentry" / "standby" / "socket"

    def start(self, code: str, *options: str, prefix: tuple[str, ...] = (), **popen: Any) -> subprocess.Popen[str]:
        argv = [*prefix, *self.sandbox.argv([PYTHON, "-c", code], options=options)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.processes.append(self.sandbox.popen(argv, **(pipes | {"start_new_session": True} | popen)))
        return self.processes[-1]

    def begun(self, code: str = WAITS, *options: str, **popen: Any) -> subprocess.Popen[str]:
        """A run whose agent has said that it is ready."""
        process = self.start(code, *options, **popen)
        assert process.stdout.readline() == "ready\n", process.communicate()
        return process

    @property
    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def supervisors(self) -> list[int]:
        """The runs that were forked, and go on: the spare is in the session of the standby."""
        found = []
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                found += [pid] if os.getsid(pid) == pid else []
        return found

    def close(self) -> None:
        for process in [self.process, *self.processes]:
            if process.poll() is None:
                process.kill()
                process.communicate() if process.stdout else process.wait()


@pytest.fixture
def standby(sandbox: Sandbox) -> Iterator[Standby]:
    made = Standby(sandbox)
    yield made
    made.close()


def test_a_forked_run_is_the_same_as_an_ordinary_one(standby):
    found = []
    for warm in (True, False):
        process = standby.start(
            FACTS,
            prefix=("env", "--ignore-signal=USR2", "SECRET=x", *(() if warm else ("HELM_SENTRY_ORDINARY=1",))),
            umask=0o027,
        )
        until(lambda: standby.sandbox.runs() and len(standby.sandbox.runs()) > len(found))
        assert len(standby.supervisors()) == warm
        out, err = process.communicate("words", timeout=PATIENCE)
        assert process.returncode == 7
        assert "to stderr" in err and "decision" in err
        own = json.loads(out)[2]["HELM_SENTRY_DOOR"].rpartition("/")[0]
        found.append(json.loads(out.replace(own, "OWN")))
        until(lambda: not standby.supervisors())  # it ends after its caller
    assert found[0] == found[1]
    assert found[0][:2] == [str(standby.sandbox.workspace), 0o027]
    assert signal.SIGUSR2 in found[0][5]
    for directory in standby.sandbox.runs():
        assert standby.sandbox.verify(directory).returncode == 0
    first, second = (json.loads((d / "run.json").read_text()) for d in sorted(standby.sandbox.runs()))
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"run", "variables", "time", "start", "argv"}


@pytest.mark.parametrize("way", ["program", "usage"])
def test_what_cannot_be_run_is_said_as_ever(standby, way):
    words = (["no-such-program"], 127, "no such program") if way == "program" else (["-x"], 2, "No such option")
    argv = [*standby.sandbox.command, "run", *words[0]]
    process = standby.sandbox.popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    assert process.communicate(timeout=PATIENCE)[1].count(words[2]) == 1
    assert process.returncode == words[1]
    assert "ordinary" not in standby.log.read_text()


def test_signals_reach_the_agent_and_its_end_is_repeated(standby):
    process = standby.begun("import signal; print('ready', flush=True); signal.pause()")
    assert len(standby.supervisors()) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == -signal.SIGTERM
    assert standby.sandbox.verify(*standby.sandbox.runs()).returncode == 0


def test_an_interrupt_is_the_agents(standby):
    process = standby.begun(INTERRUPTED)
    assert len(standby.supervisors()) == 1
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "interrupted\n")


@ONCE
def test_it_has_no_key_and_lets_nobody_look(standby):
    standby.begun()  # so there is a key
    key = next((standby.sandbox.root / "state/helm-sentry/keys").glob("*.key")).read_bytes()
    assert len(os.listdir(f"/proc/{standby.process.pid}/task")) == 1
    with open(f"/proc/{standby.process.pid}/maps") as maps, open(f"/proc/{standby.process.pid}/mem", "rb") as memory:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "r" in line.split()[1] and "[v" not in line:
                memory.seek(begin)
                assert key.split()[-1] not in memory.read(end - begin), line
    assert os.stat(f"/proc/{standby.process.pid}/environ").st_uid == 0  # not dumpable: its entries are root's
    assert standby.socket.stat().st_mode & 0o777 == 0o600
    assert standby.socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_run_ends_with_its_caller(standby):
    process = standby.begun()
    (supervisor,) = standby.supervisors()
    process.kill()
    until(lambda: not standby.supervisors())
    assert not alive(supervisor)
    (directory,) = standby.sandbox.runs()
    assert standby.sandbox.verify(directory).returncode == 0
    assert '"caller-gone"' in (directory / "audit.jsonl").read_text()


def test_a_supervisor_that_is_killed_ends_its_agent(standby):
    process = standby.begun(DENIED)
    (supervisor,) = standby.supervisors()
    # The first: a tracer has a bell as well.
    guardian, *_ = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    os.kill(supervisor, signal.SIGKILL)
    assert process.wait(PATIENCE) == 125
    assert process.stdout.read() == ""
    assert "the supervisor was killed" in process.stderr.read()
    until(lambda: not alive(int(guardian)))


def test_a_standby_that_is_killed_frees_nobody_and_the_next_run_is_an_ordinary_one(standby):
    process = standby.begun(DENIED)
    (supervisor,) = standby.supervisors()
    standby.process.kill()
    standby.process.wait(PATIENCE)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "Permission denied\n"
    assert parent_of(supervisor) != standby.process.pid
    process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert standby.sandbox.verify(*standby.sandbox.runs()).returncode == 0
    ordinary = standby.begun()
    assert ordinary.communicate("more\n", timeout=PATIENCE)[0] == "more\n"


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))


CHANGED = [
    pytest.param((), lambda: os.nice(1), {}, "priority", id="nice"),
    pytest.param((), limited, {}, "limits", id="limits"),
    pytest.param(("setpriv", "--no-new-privs"), None, {}, "NoNewPrivs", id="no new privileges"),
    pytest.param(("env", "LANG=C"), None, {}, "LANG", id="language"),
    pytest.param(("unshare", "--user", "--map-current-user"), None, {}, "user namespace", id="namespace"),
    pytest.param((), None, {"extra_groups": [NOBODY, 1]}, "Groups", id="groups"),
]


@pytest.mark.parametrize(("prefix", "before", "popen", "name"), CHANGED)
def test_a_caller_that_is_not_the_same_has_an_ordinary_start(
    standby, prefix: tuple[str, ...], before: Callable[[], object] | None, popen: dict[str, Any], name: str
):
    if "extra_groups" in popen and os.getuid():
        pytest.skip("to have other groups takes root")
    same = standby.begun()
    assert len(standby.supervisors()) == 1  # the control
    other = standby.begun(prefix=prefix, preexec_fn=before, **popen)
    assert len(standby.supervisors()) == 1
    assert f"process {other.pid}: it differs in" in (log := standby.log.read_text())
    assert name in log.rpartition("it differs in ")[2]
    for process in (same, other):
        assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
        assert process.returncode == 0


@ONCE
@pytest.mark.parametrize("way", ["nothing", "errors", "session", "variable", "alone"])
def test_a_terminal_and_what_is_said_to_us_alone_make_it_an_ordinary_start(standby, way):
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    popen: dict[str, dict[str, Any]] = {
        "errors": {"stderr": theirs},
        "session": {"preexec_fn": lambda: os.open(name, os.O_RDWR)},  # which makes it the session's
        "variable": {"prefix": ("env", "HELM_SENTRY_ANYTHING=1")},
    }
    try:
        process = standby.begun(WAITS, *(["--alone"] if way == "alone" else []), **popen.get(way, {}))
        assert len(standby.supervisors()) == (way == "nothing")
        assert ("it differs in terminal" in standby.log.read_text()) == (way == "session")
        assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("sandbox", ["user"], indirect=True)
def test_stale_code_is_not_used(standby):
    if os.getuid():
        pytest.skip("the installation is made by root")
    same = standby.begun()
    assert len(standby.supervisors()) == 1
    assert same.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
    found = next(
        Path(standby.sandbox.command[0]).parents[1].glob("lib/python*/site-packages/helm_sentry/demo/board.py")
    )
    before = found.stat()
    os.utime(found, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        process = standby.begun()
        assert standby.process.wait(PATIENCE) == 0
        assert "board.py` has changed" in standby.log.read_text()
        assert "start the standby again" in standby.log.read_text()
        assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
        assert not standby.socket.exists()
    finally:
        os.utime(found, ns=(before.st_atime_ns, before.st_mtime_ns))


REACHES = """
import os, socket, sys
print("ready", flush=True)
for place in sys.argv[1:]:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            print("reached", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
sys.stdin.readline()
"""


def test_an_agent_cannot_reach_it_and_a_child_of_a_supervisor_is_turned_away(standby):
    sandbox = standby.sandbox
    policy = sandbox.policy("extends: [default]\nallow:\n  - id: all\n    unix: {do: [connect], paths: ['/**']}\n")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(sandbox.workspace / "listening"))
    listening.listen()
    os.chmod(sandbox.workspace / "listening", 0o777)
    places = [str(sandbox.workspace / "listening"), str(standby.socket)]
    assert sandbox.native([PYTHON, "-c", REACHES, *places]).stdout.split() == ["ready", "reached", "reached"]
    found = sandbox.run([PYTHON, "-c", REACHES, *places], policy)
    assert found.stdout.split() == ["ready", "reached", "PermissionError"]
    listening.close()


BADGED = """
import os, subprocess, sys
from helm_sentry.control.badge import Badge
badge = Badge() if sys.argv[1] == "badge" else None
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


@pytest.mark.parametrize("sandbox", ["root" if os.getuid() == 0 else "user"], indirect=True)
def test_whoever_descends_from_a_supervisor_is_turned_away(standby):
    python = str(Path(standby.sandbox.command[0]).parent / "python")
    for badge in ("none", "badge"):
        process = standby.begun(prefix=(python, "-c", BADGED, badge))
        assert len(standby.supervisors()) == (badge == "none")
        assert ("an agent, or its supervisor" in standby.log.read_text()) == (badge == "badge")
        assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
        until(lambda: not standby.supervisors())


HESITATES = """
import os, socket, sys
from helm_sentry.standby.client import GO
from helm_sentry.standby.words import own_words, packed
sys.path[0] = os.path.dirname(sys.argv[1])
place, goes, sys.argv = sys.argv[2], sys.argv[3] == "goes", [sys.argv[1], "run", "--", "true"]
with socket.socket(socket.AF_UNIX) as client:
    client.connect(place)
    socket.send_fds(client, [b" "], [0, 1, 2, os.open(".", os.O_PATH)])
    client.sendall(packed(own_words()))
    assert client.recv(1) == GO
    if goes:
        client.sendall(GO)
        client.recv(100)
"""


@pytest.mark.parametrize("sandbox", ["root" if os.getuid() == 0 else "user"], indirect=True)
def test_nothing_is_done_for_a_caller_that_has_given_up(standby):
    python = Path(standby.sandbox.command[0]).read_text().splitlines()[0].removeprefix("#!")
    for times, word in ((0, "hesitates"), (1, "goes")):
        command = [python, "-c", HESITATES, standby.sandbox.command[0], str(standby.socket), word]
        assert standby.sandbox.popen(command, start_new_session=True).wait(PATIENCE) == 0, standby.log.read_text()
        until(lambda: not standby.supervisors())
        assert len(standby.sandbox.runs()) == times
    assert "it did not wait" in standby.log.read_text()


@ONCE
def test_without_its_spare_it_ends_and_runs_are_ordinary_ones(standby):
    (spare,) = standby.children
    os.kill(spare, signal.SIGKILL)
    assert standby.process.wait(PATIENCE) == 125
    assert "spare was killed" in standby.log.read_text()
    assert not standby.socket.exists()
    assert standby.begun().communicate("done\n", timeout=PATIENCE)[0] == "done\n"


def test_runs_at_the_same_time_are_forked_one_after_the_other(standby):
    processes = [standby.start(WAITS) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    assert len(standby.supervisors()) == len(standby.sandbox.runs()) == 4
    for process in processes:
        assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"


@ONCE
def test_there_is_one_and_it_ends_when_it_is_told(standby):
    second = standby.sandbox.popen(
        [*standby.sandbox.command, "standby"], stderr=subprocess.PIPE, start_new_session=True
    )
    assert "serves" in second.communicate(timeout=PATIENCE)[1]
    assert second.returncode == 125
    standby.process.terminate()
    assert standby.process.wait(PATIENCE) == 0
    assert not standby.socket.exists()


TRACEPOINTS = 5  # of the witness: entry and exit of a call; fork, exec and exit of a process


def bpf(pid: int) -> dict[str, set[str]]:
    """The programs, links and maps that a process has descriptors of, as the kernel shows them."""
    found: dict[str, set[str]] = {"link_id": set(), "prog_id": set(), "map_id": set()}
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        for line in Path(f"/proc/{pid}/fdinfo/{name}").read_text().splitlines():
            kind, _, value = line.partition(":\t")
            if kind in found:
                found[kind].add(value)
    return found


def eldest(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@ONCE
@pytest.mark.skipif(os.getuid() != 0, reason="only root may load bpf programs")
@pytest.mark.skipif("ptrace" in TIER, reason="no witness looks at a traced run; test_tracer says so")
def test_the_witness_is_loaded_before_anybody_asks_and_runs_for_the_one_who_did(standby):
    first = standby.begun()  # has it compiled, if nobody has before
    assert first.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
    standby.begun().communicate("done\n", timeout=PATIENCE)  # the spare of this one may have been made too early
    until(lambda: not standby.supervisors())
    until(lambda: len(standby.children) == 1 and len(bpf(standby.children[0])["prog_id"]) == TRACEPOINTS, "it is ready")
    ready = bpf(standby.children[0])
    assert not ready["link_id"]  # no program runs
    process = standby.begun()
    (supervisor,) = standby.supervisors()
    has = bpf(supervisor)
    assert has["prog_id"] == ready["prog_id"] and has["map_id"] == ready["map_id"]
    assert len(has["link_id"]) == len(ready["prog_id"])
    guardian = eldest(supervisor)
    for pid in (guardian, eldest(guardian), standby.process.pid):
        assert not any(bpf(pid).values())
    assert process.communicate("done\n", timeout=PATIENCE)[0] == "done\n"
    until(lambda: not standby.supervisors())
    for directory in standby.sandbox.runs():
        assert standby.sandbox.verify(directory).returncode == 0
        records = [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]
        assert [r["state"] for r in records if r["type"] == "witness"] == ["begins", "ends"]


@ONCE
def test_the_guardian_has_its_pipes_and_the_callers_connection_and_nothing_else(standby):
    held = os.open(standby.sandbox.workspace, os.O_RDONLY)
    try:
        process = standby.begun("import os; print('ready', flush=True); input()", "--alone", pass_fds=[held])
        warm = standby.begun()
        (supervisor,) = standby.supervisors()
        assert str(held) in os.listdir(f"/proc/{process.pid}/fd")  # the control: it came as far as the supervisor
        for pid, connections in ((process.pid, 0), (supervisor, 1)):
            fds = Path(f"/proc/{eldest(pid)}/fd")
            kept = sorted(os.readlink(fd).partition(":")[0] for fd in fds.iterdir() if int(fd.name) > 2)
            assert kept == ["anon_inode"] + ["pipe"] * 2 + ["socket"] * connections
    finally:
        os.close(held)
    for each in (process, warm):
        each.communicate("done\n", timeout=PATIENCE)
        assert each.returncode == 0
