"""What this host offers, found by asking the kernel, never by reading a version."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from helm_sentry.abi import flags, libc
from helm_sentry.errors import UsageError


@dataclass(frozen=True, slots=True)
class Features:
    """Kernel mechanisms a plan can rest on.

    Attributes:
        kernel: release, for people.
        machine: architecture, for people.
        root: the supervisor runs as root.
        listener: a seccomp filter can be given a listener here; false where another one is in the way.
        wait_killable: a call that the supervisor works on is interrupted by fatal signals only (Linux 5.19).
        landlock: Landlock ABI, 0 for none.
        ptrace: a process of one's own can be seized.
        btf: the kernel describes its types at /sys/kernel/btf/vmlinux.
        bcc: Debian's python3-bpfcc can be imported (PyPI's `bcc` is something else).
    """

    kernel: str
    machine: str
    root: bool
    listener: bool
    wait_killable: bool
    landlock: int
    ptrace: bool
    btf: bool
    bcc: bool

    @property
    def signal_scope(self) -> bool:
        """Whether Landlock keeps signals and abstract sockets inside the agent (ABI 6, Linux 6.12)."""
        return self.landlock >= 6

    def without(self, names: Iterable[str]) -> "Features":
        """Return what a host would offer that lacks some of it, by the names of the attributes.

        Raises:
            UsageError: there is no such feature.
        """
        lacking: dict[str, Any] = {
            "landlock": 0,
            **dict.fromkeys(("root", "listener", "wait_killable", "ptrace", "btf", "bcc"), False),
        }
        if unknown := [name for name in names if name not in lacking]:
            raise UsageError(f"`{unknown[0]}` is no feature that a host may lack; there are {', '.join(lacking)}")
        return replace(self, **{name: lacking[name] for name in names})

    def words(self) -> tuple[str, ...]:
        """Return what is there, one word each, for the record of a run."""
        present = [
            name for name in ("root", "listener", "wait_killable", "ptrace", "btf", "bcc") if getattr(self, name)
        ]
        return (f"kernel-{self.kernel}", f"landlock-{self.landlock}", *present)


def probe(thorough: bool = False) -> Features:
    """Return what this host offers.

    Args:
        thorough: also look for what only `doctor` reports.
    """
    return begin(thorough)()


def begin(thorough: bool = False) -> Callable[[], Features]:
    """Begin to ask; the caller may do other things before it calls what this returns. See `probe`."""
    listener, ptrace = _in_child(_install_listener), _in_child(_seize_child)
    return lambda: Features(
        kernel=os.uname().release,
        machine=os.uname().machine,
        root=os.geteuid() == 0,
        # In a container that owns a listener already it is EBUSY.
        listener=_succeeded(listener),
        wait_killable=libc.seccomp_flag_known(flags.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
        landlock=libc.landlock_abi(),
        ptrace=_succeeded(ptrace),
        btf=os.path.exists("/sys/kernel/btf/vmlinux"),
        bcc=thorough and _bcc_there(),
    )


def _install_listener() -> None:
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    allow_everything = b"\x06\x00\x00\x00" + flags.SECCOMP_RET_ALLOW.to_bytes(4, "little")
    os.close(libc.seccomp_listener(allow_everything, 0))


def _seize_child() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        libc.ptrace(flags.PTRACE_SEIZE, child, flags.PTRACE_O_EXITKILL)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, flags.WALL)


def _in_child(attempt: Callable[[], None]) -> int:
    """Begin `attempt` in a process that can be thrown away, and return its id."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def _succeeded(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def _bcc_there() -> bool:
    spec = importlib.util.find_spec("bcc")
    # PyPI's `bcc` is an unrelated lattice library; the kernel one has a module for libbcc.
    return spec is not None and importlib.util.find_spec("bcc.libbcc") is not None
