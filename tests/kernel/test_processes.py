"""Processes: a run may signal, limit and schedule itself, and nobody else; it may look into no process at all."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.conftest import PYTHON, Result, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.every_tier]

POWERLESS = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
POLICY = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
"""
URGENT, USER, END = int(signal.SIGURG), int(signal.SIGUSR1), int(signal.SIGTERM)


def lines(result: Result) -> list[str]:
    assert result.status == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@dataclass
class Outsider:
    """A live process of the agent's user that belongs to no run; it says which signals reach it."""

    process: "subprocess.Popen[str]"

    @property
    def pid(self) -> int:
        return self.process.pid

    def heard(self) -> set[str]:
        """Return what has reached it since the last look; whatever was sent before this call is in it."""
        os.kill(self.pid, signal.SIGWINCH)
        return self.said(f"signal {int(signal.SIGWINCH)}")

    def said(self, last: str) -> set[str]:
        """Return the lines before `last`."""
        assert self.process.stdout is not None
        text = ""
        while not text.endswith(f"{last}\n"):
            assert select.select([self.process.stdout], [], [], 20)[0], text
            text += os.read(self.process.stdout.fileno(), 4096).decode()
        return set(text.splitlines()[:-1])


@pytest.fixture
def outsider(sandbox: Sandbox, victims: Path) -> Iterator[Outsider]:
    command = [*POWERLESS, str(victims / "proc_outsider")]  # no more power than the control has
    process = sandbox.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    made = Outsider(process)
    assert made.said("ready") == set()
    yield made
    out, _ = process.communicate(timeout=30)
    assert out.endswith("end\n")  # it has lived to the end
    assert process.returncode == 0


OWN_SIGNALS = [
    *("kill,self,0", "kill,child,15", "kill,orphan,15", "kill,zombie,0", "kill,gone,0", "kill,child,99"),
    *("tkill,thread,10", "tkill,-1,15", "tgkill,thread,10", "tgkill,self,23", "tgkill,0,15"),
    *("queue,child,15", "queue,-1,15", "tgqueue,child,15", "tgqueue,0,15"),
    *("pidfd,child,15", "pidfd-info,child,15", "pidfd,zombie,0", "pidfd,gone,15", "pidfd-file,self,15"),
    "setown,child,15",
]
OWN_SETTINGS = [
    *("affinity,self", "affinity,zero", "affinity,child", "affinity,thread", "affinity,zombie", "affinity,gone"),
    *("scheduler,child", "param,thread", "attr,child", "limit,self", "limit,child", "limit-read,child", "limit,gone"),
    *("priority,child", "priority,thread", "priority,gone", "ioprio,child", "ioprio,thread", "ioprio,gone"),
]
SIGNALS = [f"{how},{{}},{URGENT}" for how in ("kill", "tkill", "tgkill", "queue", "tgqueue", "pidfd", "pidfd-info")]
SETTINGS = [
    *("affinity,{}", "scheduler,{}", "param,{}", "attr,{}", "limit,{}", "limit-read,{}", "priority,{}"),
    *("group-priority,{}", "ioprio,{}"),
]
LOOKS = ("attach", "seize", "read", "write", "getfd", "kcmp")


class TestSignals:
    """Every way to send one."""

    def test_own_processes_get_theirs(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "proc_attempt"), *OWN_SIGNALS]
        native = lines(sandbox.native(command))
        assert native.count("ok") == 13
        assert {"ESRCH", "EINVAL", "EBADF"} <= set(native)
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == native
        assert result.denials() == []

    def test_an_outsider_gets_none(self, sandbox: Sandbox, victims: Path, outsider: Outsider) -> None:
        tries = [text.format(outsider.pid) for text in SIGNALS] + [f"kill,{outsider.pid},0"]
        command = [str(victims / "proc_attempt"), *tries]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["ok"] * 8
        assert outsider.heard() == {f"signal {URGENT}"}
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == ["EPERM"] * 8
        assert outsider.heard() == set()
        denied = result.denials("process.signal")
        assert [(record["target"], record["rule"]) for record in denied] == [
            (f"{name} {outsider.pid}", "sentry/own-processes") for name in ["SIGURG"] * 7 + ["0"]
        ]

    def test_the_supervisor_gets_none(self, sandbox: Sandbox) -> None:
        """Supervisor and guardian are outsiders too."""
        script = (
            "import os, signal\n"
            "for pid in (int(input()), os.getppid()):\n"
            "    for how in (os.kill, lambda pid, number: signal.pidfd_send_signal(os.pidfd_open(pid), number)):\n"
            "        try:\n            how(pid, 9)\n            print('killed')\n"
            "        except PermissionError:\n            print('no')\n"
        )
        process = sandbox.popen(
            sandbox.argv(["/usr/bin/python3", "-c", script]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(f"{process.pid}\n", timeout=60)
        assert process.returncode == 0, err
        assert out.splitlines() == ["no"] * 4

    def test_an_owner_of_a_descriptor_who_is_an_outsider(
        self, sandbox: Sandbox, victims: Path, outsider: Outsider
    ) -> None:
        """F_SETOWN makes the kernel send signals; Landlock's scope stops those that leave the run (Linux 6.12)."""
        command = [str(victims / "proc_attempt"), f"setown,{outsider.pid},{URGENT}"]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["ok"]
        assert outsider.heard() == {f"signal {URGENT}"}
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) in (["ok"], ["EPERM"])  # natively, too, the caller is not told what becomes of it
        assert outsider.heard() == set()

    @pytest.mark.parametrize("how", ["group", "group-id", "everybody"])
    def test_groups_end_at_the_run(self, sandbox: Sandbox, victims: Path, outsider: Outsider, how: str) -> None:
        """Agent and supervisor share a process group; a signal whose default is death leaves the supervisor alone."""
        number = URGENT if how == "everybody" else int(signal.SIGRTMIN) + 9
        command = [str(victims / "proc_attempt"), f"{how},{number}"]
        reached = "child s, self 0" if how == "everybody" else "child s, self 1"
        argv = sandbox.argv(command, sandbox.policy(POLICY))
        before = set(sandbox.runs())
        for attempt in (argv,) if how == "everybody" else (command, argv):
            process = sandbox.popen(
                attempt,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert out.splitlines() == ["ok", reached]
        (run,) = set(sandbox.runs()) - before
        assert sandbox.verify(run).returncode == 0
        assert outsider.heard() == set()


class TestLooking:
    """No process may be looked into, one's own included: what was judged must not change behind the judge's back."""

    def test_an_outsider_is_closed(self, sandbox: Sandbox, victims: Path, outsider: Outsider) -> None:
        tries = [f"{how},{outsider.pid}" for how in ("seize", "getfd", "kcmp")]
        command = [str(victims / "proc_attempt"), *tries]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["ok"] * 3
        result = sandbox.run([*command, *(f"{how},{outsider.pid}" for how in LOOKS)], sandbox.policy(POLICY))
        assert lines(result) == ["EPERM"] * 9
        assert len(result.denials("process.trace")) == 9

    def test_so_is_the_run_itself(self, sandbox: Sandbox, victims: Path) -> None:
        tries = [f"{how},child" for how in LOOKS] + ["traceme,self", "read,self", "write,self", "kcmp,self"]
        command = [str(victims / "proc_attempt"), *tries]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["ok"] * len(tries)
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == ["EPERM"] * len(tries)
        names = [record["syscall"] for record in result.denials("process.trace")]
        calls = ["ptrace", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"]
        assert names == [*calls, "ptrace", "process_vm_readv", "process_vm_writev", "kcmp"]


class TestSettings:
    """Priorities, processors and limits."""

    def test_own_processes_and_threads_can_be_set(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "proc_attempt"), *OWN_SETTINGS]
        native = lines(sandbox.native([*POWERLESS, *command]))
        assert native.count("ok") == len(OWN_SETTINGS) - 4
        assert native.count("ESRCH") == 4
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == native
        assert result.denials() == []

    def test_outsiders_cannot(self, sandbox: Sandbox, victims: Path, outsider: Outsider) -> None:
        before = os.sched_getaffinity(outsider.pid), os.getpriority(os.PRIO_PROCESS, outsider.pid)
        tries = [text.format(outsider.pid) for text in SETTINGS]
        command = [str(victims / "proc_attempt"), *tries]
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == ["EPERM"] * len(tries)
        assert len(result.denials("process.trace")) == len(tries)
        assert (os.sched_getaffinity(outsider.pid), os.getpriority(os.PRIO_PROCESS, outsider.pid)) == before
        native = lines(sandbox.native([*POWERLESS, *command]))
        # The outsider leads no process group.
        assert native == ["ok" if not text.startswith("group") else "ESRCH" for text in tries]
        assert os.getpriority(os.PRIO_PROCESS, outsider.pid) == 19

    def test_threads_are_pinned_as_numerical_libraries_do(self, sandbox: Sandbox) -> None:
        script = (
            "import os, threading\n"
            "def work():\n"
            "    os.sched_setaffinity(threading.get_native_id(), {min(os.sched_getaffinity(0))})\n"
            "    print(len(os.sched_getaffinity(threading.get_native_id())))\n"
            "thread = threading.Thread(target=work)\n"
            "thread.start()\n"
            "thread.join()\n"
            "print(len(os.sched_getaffinity(0)) == len(os.sched_getaffinity(os.getpid())))\n"
        )
        command = ["/usr/bin/python3", "-c", script]
        assert lines(sandbox.run(command)) == lines(sandbox.native(command)) == ["1", "True"]


class TestDirectories:
    """chdir is continued and looked at afterwards; only a thread that has strayed is killed."""

    def test_every_directory_gives_what_it_gives_natively(self, sandbox: Sandbox, victims: Path) -> None:
        (sandbox.workspace / "open").mkdir()
        (sandbox.workspace / "shut").mkdir()
        (sandbox.workspace / "file").touch()
        (sandbox.workspace / "link").symlink_to("open")
        (sandbox.workspace / "loop").symlink_to("loop")
        for name in ("open", "shut"):
            os.chown(sandbox.workspace / name, sandbox.uid, sandbox.uid)
        (sandbox.workspace / "shut").chmod(0o600)
        places = [
            "open",
            "shut",
            "file",
            "link",
            "loop",
            "missing",
            "..",
            "../workspace/open",
            "/proc/self",
            "/proc/self/fd",
        ]
        places += ["/proc/thread-self", "/dev/fd", "/", "x" * 300]
        tries = [f"{how},{place}" for place in places for how in ("chdir", "fchdir")]
        command = [str(victims / "proc_attempt"), *tries]
        native = lines(sandbox.native([*POWERLESS, *command]))
        assert {"ok", "EACCES", "ENOTDIR", "ELOOP", "ENOENT", "ENAMETOOLONG"} <= set(native)
        look = "  - {id: look, file: {do: [stat, list], paths: ['/**']}}\n"
        result = sandbox.run(command, sandbox.policy(POLICY + look))
        assert lines(result) == native
        assert result.denials() == []

    def test_a_place_without_a_rule(self, sandbox: Sandbox, victims: Path) -> None:
        hidden = sandbox.root / "hidden"
        hidden.mkdir()
        hidden.chmod(0o755)
        command = [str(victims / "proc_attempt"), f"chdir,{hidden}", "chdir,../hidden", "chdir,/srv/missing/place"]
        assert lines(sandbox.native(command)) == ["ok", "ok", "ENOENT"]
        result = sandbox.run(command, sandbox.policy(POLICY))
        assert lines(result) == ["EACCES"] * 3
        assert [record["target"] for record in result.denials("file.stat")] == [str(hidden)] * 2 + ["/srv/missing"]

    def test_a_failure_where_no_rule_lets_it_stand_is_no_crime(self, sandbox: Sandbox, victims: Path) -> None:
        """The run begins in a directory that no rule names; to stay there is allowed."""
        (sandbox.root / "shut").mkdir(mode=0o600)
        os.chown(sandbox.root / "shut", sandbox.uid, sandbox.uid)
        text = "extends: [base]\nallow:\n  - {id: program, exec: {paths: ['${program}']}}\n"
        text += f"  - {{id: look, file: {{do: [stat], paths: ['{sandbox.root}/shut']}}}}\n"
        command = [str(victims / "proc_attempt"), f"chdir,{sandbox.root}/shut"]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["EACCES"]
        result = sandbox.run(command, sandbox.policy(text))
        assert lines(result) == ["EACCES"]


# Each child is killed as it looks, again and again; which of them dies between its call and the answer is chance.
DYING = """
import os, select, signal
children = 200
for _ in range(children):
    begun, beginning = os.pipe()
    child = os.fork()
    if not child:
        os.write(beginning, b"!")
        while True:
            os.access("place", os.R_OK)
    os.read(begun, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(begun), os.close(beginning)
print("killed", children)
"""


def test_a_caller_that_dies_has_not_been_refused(sandbox: Sandbox) -> None:
    """The kernel then keeps its memory from the supervisor as it would a hidden one."""
    (sandbox.workspace / "place").write_text("")
    result = sandbox.run([PYTHON, "-c", DYING])
    assert lines(result) == ["killed 200"]
    assert result.denials() == []
