"""The parts of the kernel that no agent needs: each attempt is refused and recorded by kind and by name."""

import platform
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.conftest import Result, Sandbox

pytestmark = pytest.mark.kernel

POLICY = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
"""
KINDS = {
    "mount": "mount mount_remount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick "
    "mount_setattr statmount listmount open_tree_attr",
    "io_uring": "io_uring_setup io_uring_enter io_uring_register",
    "bpf": "bpf",
    "perf": "perf_event_open",
    "userfaultfd": "userfaultfd",
    "keyring": "add_key request_key keyctl",
    "module": "init_module finit_module delete_module",
    "reboot": "kexec_load kexec_file_load reboot",
    "swap": "swapon swapoff",
    "quota": "acct quotactl quotactl_fd",
    "namespace": "sethostname setdomainname unshare_user unshare_mount unshare_net unshare_pid unshare_ipc unshare_uts "
    "unshare_cgroup unshare_time unshare_both unshare_wide clone_user clone_mount clone_wide clone3_user clone3_time "
    "setns listns",
    "clock": "settimeofday clock_settime adjtimex clock_adjtime",
    "personality": "personality personality_wide set_mm",
    "seccomp": "listener listener_wide",
    "handle": "name_to_handle_at open_by_handle_at",
    "watch": "fanotify_init fanotify_mark",
    "lease": "lease notify",
    "ioctl": "attributes terminal_input terminal_input_wide terminal_console terminal_discipline vhangup",
    "ipc": "shmget shmat semget msgget mq_open",
    "unknown": "syslog unknown unknown_wide minus_one minus_two",
}
OF_X86 = {
    "ports": "iopl ioperm",
    "personality": "modify_ldt",
    "unknown": "uselib ustat sysfs",
    "abi": "x32_getpid x32_open x32_execve x32_ioctl",
}
TRACE = ("process_madvise", "process_mrelease", "migrate_pages", "move_pages")
# The syscall in the record where it is not the attempt's own name, without what follows an underscore.
CALLS = {
    "set_mm": "prctl",
    "listener": "seccomp",
    "listener_wide": "seccomp",
    "lease": "fcntl",
    "notify": "fcntl",
    "attributes": "ioctl",
    "terminal_input": "ioctl",
    "terminal_input_wide": "ioctl",
    "terminal_console": "ioctl",
    "terminal_discipline": "ioctl",
    "mount_remount": "mount",
    "personality_wide": "personality",
    "unknown": "unknown-1023",
    "unknown_wide": "unknown-1073741823",
    "minus_one": "unknown--1",
    "minus_two": "unknown--2",
    "x32_getpid": f"foreign-{0x40000000 | 39}",
    "x32_open": f"foreign-{0x40000000 | 2}",
    "x32_execve": f"foreign-{0x40000000 | 520}",
    "x32_ioctl": f"foreign-{0x40000000 | 514}",
}
FREE = ("personality", "filter", "unshare", "fork", "dup", "ioctl", "pages", "prctl")
# What succeeds natively on any kernel that has it, so that the refusal can be the supervisor's only.
ANYBODY = (
    "io_uring_setup add_key keyctl adjtimex listener listener_wide personality personality_wide shmget semget msgget"
)
POWER = "chroot fsopen open_tree unshare_mount unshare_net unshare_uts unshare_ipc unshare_pid unshare_user clone_user "
POWER += (
    "clone_wide clone3_user setns bpf perf_event_open fanotify_init name_to_handle_at mq_open lease notify attributes"
)


def expected() -> dict[str, tuple[str, str]]:
    """Return the kind and the syscall of each attempt."""
    found: dict[str, tuple[str, str]] = {}
    groups = [(kind, names.split()) for kind, names in KINDS.items()]
    if platform.machine() == "x86_64":
        groups += [(kind, names.split()) for kind, names in OF_X86.items()]
    for kind, names in groups:
        for name in names:
            prefix = name.partition("_")[0]
            call = CALLS.get(name, prefix if prefix in ("unshare", "clone", "clone3") else name)
            found[name] = (f"kernel.{kind}", call)
    return found | {name: ("process.trace", name) for name in TRACE}


def outcomes(result: Result) -> dict[str, str]:
    assert result.status == 0, result.stdout + result.stderr
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


def test_every_attempt_is_refused_and_recorded(sandbox: Sandbox, victims: Path) -> None:
    wanted = expected()
    free = [f"free_{name}" for name in FREE]
    result = sandbox.run([str(victims / "kernel_attempts"), *wanted, *free], sandbox.policy(POLICY))
    found = outcomes(result)
    assert {name: found.pop(name) for name in free} == dict.fromkeys(free, "ok")
    assert set(found) == set(wanted)
    assert set(found.values()) == {"EPERM", "ENOSYS"}
    # `setns` needs a file that no rule opens.
    denied = [record for record in result.denials() if record["ops"] != ["file.read"]]
    assert Counter((record["ops"][0], record["syscall"]) for record in denied) == Counter(wanted.values())
    assert {record["action"] for record in denied} == {"errno"}
    # The errno in the record is the one the agent got.
    assert Counter(record["errno"] for record in denied) == Counter(found.values())
    assert sandbox.verify(result.directory).returncode == 0


def test_the_same_attempts_succeed_natively(sandbox: Sandbox, victims: Path) -> None:
    """The control. Not all: vhangup would hang up the tester's terminal, others need what no test should do."""
    names = ANYBODY.split() + (POWER.split() if sandbox.uid == 0 else [])
    found = outcomes(sandbox.native([str(victims / "kernel_attempts"), *names]))
    # Switched off by sysctl on some machines; there ENOSYS or EPERM is the machine's own answer.
    assert {name for name, outcome in found.items() if outcome != "ok"} <= {"io_uring_setup", "mq_open"}
    assert len(found) == len(names)


def test_what_fails_natively_fails_for_its_own_reason(sandbox: Sandbox, victims: Path) -> None:
    """Bad arguments get through to the kernel natively: other errors than a refusal."""
    names = ["umount2", "io_uring_enter", "fsconfig", "clock_settime", "process_madvise", "open_by_handle_at"]
    found = outcomes(sandbox.native([str(victims / "kernel_attempts"), *names]))
    assert not {"ok", "ENOSYS"} & set(found.values())
    assert "EPERM" not in {found[name] for name in names if name != "umount2" or sandbox.uid == 0}


def test_a_policy_can_name_a_kind(sandbox: Sandbox, victims: Path) -> None:
    kinds = "ipc, keyring, personality, clock"
    policy = sandbox.policy(POLICY + f"  - {{id: kernel, kernel: [{kinds}]}}\n")
    names = ["shmget", "semget", "msgget", "keyctl", "personality", "adjtimex", "fsopen"]
    result = sandbox.run([str(victims / "kernel_attempts"), *names], policy)
    wanted = dict.fromkeys(names, "ok") | {"fsopen": "ENOSYS"}
    assert outcomes(result) == wanted
    assert [record["syscall"] for record in result.denials()] == ["fsopen"]


def test_no_policy_gives_an_agent_a_listener(sandbox: Sandbox, victims: Path) -> None:
    policy = sandbox.policy(POLICY + "  - {id: kernel, kernel: [seccomp]}\n")
    # The kernel has one listener for all filters of a process, and it is the supervisor's.
    result = sandbox.run([str(victims / "kernel_attempts"), "listener"], policy, options=["--tier", "seccomp"])
    assert (outcomes(result), result.denials()) == ({"listener": "EBUSY"}, [])
    refused = sandbox.run([str(victims / "kernel_attempts"), "listener"], policy, options=["--tier", "ptrace"])
    assert (refused.status, "`kernel.seccomp` cannot be allowed" in refused.stderr) == (125, True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has this door")
def test_the_32_bit_door_is_shut(sandbox: Sandbox, victims: Path) -> None:
    goal = sandbox.workspace / "goal"
    goal.write_text("here")
    goal.chmod(0o666)
    command = [str(victims / "kernel_int80"), str(goal)]
    result = sandbox.run(command, sandbox.policy(POLICY))
    assert goal.exists()
    native = sandbox.native(command)
    if native.status == -signal.SIGSEGV:  # this kernel has no such ABI, and nothing to refuse
        assert result.status == -signal.SIGSEGV
        return
    assert native.stdout.splitlines() == ["getpid 1", "open 3", "unlink 0"]
    assert not goal.exists()
    assert result.stdout.splitlines() == ["getpid 0", "open -1", "unlink -1"]
    denied = [(record["ops"], record["syscall"], record["reason"], record["errno"]) for record in result.denials()]
    assert denied == [(["kernel.abi"], f"foreign-{number}", "FOREIGN_ABI", "EPERM") for number in (20, 5, 10)]
