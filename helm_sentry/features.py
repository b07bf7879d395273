"""What this host offers, found by asking the kernel, never by reading a version."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from helm_sentry.abi import flags, libc, structs
from helm_sentry.abi.arch import native
from helm_sentry.errors import FeatureError, UsageError
from helm_sentry.intercept.notify import Listener
from helm_sentry.intercept.stops import What, classify


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
        tracing: a filter can stop it at its calls, and we know how to change them there.
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
    tracing: bool
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
            **dict.fromkeys(("root", "listener", "wait_killable", "ptrace", "tracing", "btf", "bcc"), False),
        }
        if unknown := [name for name in names if name not in lacking]:
            raise UsageError(f"`{unknown[0]}` is no feature that a host may lack; there are {', '.join(lacking)}")
        return replace(self, **{name: lacking[name] for name in names})

    def words(self) -> tuple[str, ...]:
        """Return what is there, one word each, for the record of a run."""
        names = ("root", "listener", "wait_killable", "ptrace", "tracing", "btf", "bcc")
        present = [name for name in names if getattr(self, name)]
        return (f"kernel-{self.kernel}", f"landlock-{self.landlock}", *present)


def probe(thorough: bool = False) -> Features:
    """Return what this host offers.

    Args:
        thorough: also look for what only `doctor` reports.
    """
    return begin(thorough)()


_remembered: list[Features] = []


def remember() -> None:
    """Ask now, for the processes that are forked from this one: to ask is to fork three times."""
    _remembered[:] = [probe()]


def begin(thorough: bool = False) -> Callable[[], Features]:
    """Begin to ask; the caller may do other things before it calls what this returns. See `probe`."""
    if _remembered and not thorough:
        known = _remembered[0]
        return lambda: known
    listener, ptrace, tracing = map(_in_child, (_install_listener, _seize_child, _stop_child))
    return lambda: Features(
        kernel=os.uname().release,
        machine=os.uname().machine,
        root=os.geteuid() == 0,
        # In a container that owns a listener already it is EBUSY.
        listener=_succeeded(listener),
        wait_killable=libc.seccomp_flag_known(flags.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
        landlock=libc.landlock_abi(),
        ptrace=_succeeded(ptrace),
        tracing=_succeeded(tracing),
        btf=os.path.exists("/sys/kernel/btf/vmlinux"),
        bcc=thorough and _bcc_there(),
    )


def _install_listener() -> None:
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    Listener(libc.seccomp_listener(_always(flags.SECCOMP_RET_ALLOW), 0))


def _always(verdict: int) -> bytes:
    """Return a filter with one verdict for all calls."""
    return structs.SOCK_FILTER.pack(0x06, 0, 0, verdict)


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


def _stop_child() -> None:
    """Have a child stopped at a call, and look at the call."""
    if native().registers is None:
        raise FeatureError("nobody has tried to change calls on this architecture")
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(wait, 1)
        libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
        libc.seccomp_filter(_always(flags.SECCOMP_RET_TRACE))
        os._exit(os.getppid())
    info = bytearray(structs.PTRACE_SYSCALL_INFO.size)
    try:
        libc.ptrace(flags.PTRACE_SEIZE, child, flags.PTRACE_O_EXITKILL | flags.PTRACE_O_TRACESECCOMP)
        os.write(go, b"!")
        if classify(os.waitpid(child, flags.WALL)[1]).what is not What.SECCOMP:
            raise FeatureError("the filter does not stop the process")
        libc.ptrace(flags.PTRACE_GET_SYSCALL_INFO, child, libc.address_of(info), len(info))
        if info[0] != flags.PTRACE_SYSCALL_INFO_SECCOMP:
            raise FeatureError("the kernel does not tell the call")
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
