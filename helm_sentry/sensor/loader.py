"""Getting the witness into the kernel: compiled once for each kernel, loaded with bpf(2) ever after.

BCC's compiler takes a third of a second and 130 MB, so it runs in a process of its own, and what it makes is kept in
the state directory under a name that says for which source and which kernel it was made. Loading that takes a few
milliseconds and needs neither BCC nor kernel headers.
"""

import base64
import hashlib
import importlib.util
import json
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.errors import FeatureError
from helm_sentry.sensor import btf, records

EVENT_BYTES = 1 << 18
"""Size of the ring buffer: eight thousand forks and exits between two looks."""

_THREADS = 1 << 15
_COMPILE_SECONDS = 60
_OFFSETS = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_KEPT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PREFIX = "on_"  # a function `on_X` runs at raw tracepoint X
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # <linux/proc_ns.h> PROC_PID_INIT_INO


@dataclass(frozen=True, slots=True)
class Loaded:
    """Programs in the kernel. They run for as long as the links are open.

    Attributes:
        maps: descriptors by name.
        links: descriptors by tracepoint.
    """

    maps: Mapping[str, int]
    links: Mapping[str, int]

    def close(self) -> None:
        """Take the programs out of the kernel."""
        for descriptor in (*self.links.values(), *self.maps.values()):
            os.close(descriptor)


def load(cache: str) -> Loaded:
    """Load the witness and attach it.

    Args:
        cache: directory for compiled programs, created if it is not there.

    Raises:
        FeatureError: this host does not allow it; the text says what is missing.
    """
    if os.geteuid() != 0:
        raise FeatureError("only root may load bpf programs")
    if os.readlink("/proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
        raise FeatureError("in a container with process ids of its own the kernel's cannot be told apart")
    compiled = _compiled(cache)
    try:
        return _load(compiled)
    except PermissionError:
        raise FeatureError("the kernel refuses bpf programs, even from root") from None
    except OSError as error:
        raise FeatureError(f"the kernel did not take the bpf programs: {error.strerror}") from error


def unavailable(cache: str) -> str:
    """Return why there can be no witness here, found by loading one; empty when there can."""
    try:
        load(cache).close()
    except FeatureError as error:
        return str(error)
    return ""


def sources() -> str:
    """Return the directory with the sources: beside the package when installed, at the root of a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "bpf")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "bpf")


def _compiled(cache: str) -> dict[str, Any]:
    name = f"witness-{_identity()}.json"
    os.makedirs(cache, mode=0o700, exist_ok=True)
    directory = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if (kept := read_kept(directory, name)) is not None:
            return kept
        text = _compile()
        if _is_ours(directory):
            temporary = f"{name}.{secrets.token_hex(8)}"
            with open(os.open(temporary, _NEW, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
                file.write(text)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        compiled: dict[str, Any] = json.loads(text)
        return compiled
    finally:
        os.close(directory)


def read_kept(directory: int, name: str) -> dict[str, Any] | None:
    """Return compiled programs that were kept; None when there are none that only this user can have written.

    What they do they do inside the kernel, so whoever could write them would own the machine.
    """
    if not _is_ours(directory):
        return None
    try:
        with open(os.open(name, _KEPT, dir_fd=directory), encoding="ascii") as file:
            kept = json.load(file) if _is_ours(file.fileno()) else None
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def _is_ours(descriptor: int) -> bool:
    """Whether nobody but this user can write a regular file or a directory."""
    status = os.fstat(descriptor)
    ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return ordinary and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _identity() -> str:
    """Return a digest of everything that the compiled programs depend on."""
    digest = hashlib.sha256(repr((os.uname().release, os.uname().version, _sizes())).encode())
    for path in (_source(), os.path.join(sources(), "include", "witness.h"), _compiler(), "/sys/kernel/notes"):
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
        except OSError as error:
            if not path.startswith("/sys/"):
                raise FeatureError(f"`{path}` cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:32]


def _source() -> str:
    return os.path.join(sources(), "witness.bpf.c")


def _compiler() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler.py")


def _sizes() -> dict[str, int]:
    pages = EVENT_BYTES // os.sysconf("SC_PAGE_SIZE")
    return {
        "THREADS": _THREADS,
        "ROWS": records.ROWS,
        "TESTS": records.TESTS,
        "TESTS_OF_ROW": records.TESTS_OF_ROW,
        "EVENT_PAGES": pages,
    }


def _compile() -> str:
    # Imported here: only the first run on a kernel compiles.
    import subprocess

    kernel = btf.read()
    arch = native()
    defines = _sizes() | {name: kernel.offset(*member) for name, member in _OFFSETS.items()}
    defines |= {f"NR_{name.upper()}": syscalls.number(name, arch) for name in ("seccomp", "prctl")}
    defines["FIRST_ARGUMENT"] = arch.argument_offsets[0]
    if arch.name == "x86_64":
        defines["TASK_STATUS"] = kernel.offset("task_struct", "thread_info") + kernel.offset("thread_info", "status")
    command = [_interpreter(), "-I", _compiler(), _source(), *(f"{name}={value}" for name, value in defines.items())]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMPILE_SECONDS,
            env={"PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FeatureError(f"the bpf programs could not be compiled: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise FeatureError(f"the bpf programs could not be compiled: {lines[-1] if lines else 'bcc failed'}")
    return done.stdout


def _interpreter() -> str:
    """Return a Python that has BCC: this one, or the system's."""
    if importlib.util.find_spec("bcc") and importlib.util.find_spec("bcc.libbcc"):
        return sys.executable
    if os.path.exists("/usr/lib/python3/dist-packages/bcc/libbcc.py"):
        return "/usr/bin/python3"
    raise FeatureError("bcc is not installed; on debian: apt install python3-bpfcc (`bcc` on pypi is something else)")


def _load(compiled: Mapping[str, Any]) -> Loaded:
    maps: dict[str, int] = {}
    links: dict[str, int] = {}
    try:
        for entry in compiled["maps"]:
            maps[entry["name"]] = libc.bpf_map_create(
                entry["type"], entry["key"], entry["value"], entry["entries"], entry["name"]
            )
        for name, code in compiled["programs"].items():
            program = libc.bpf_load_raw_tracepoint(_with_maps(base64.b64decode(code), list(maps.values())), name)
            tracepoint = name.removeprefix(_PREFIX)
            try:
                links[tracepoint] = libc.bpf_attach_raw_tracepoint(tracepoint, program)
            finally:
                os.close(program)
    except BaseException:
        Loaded(maps, links).close()
        raise
    return Loaded(maps, links)


def _with_maps(code: bytes, maps: list[int]) -> bytes:
    """Return the instructions with each map's place in the list replaced by its descriptor."""
    instructions = bytearray(code)
    for start in range(0, len(code), 8):
        if code[start] == 0x18 and code[start + 1] >> 4 == 1:  # <linux/bpf.h> BPF_LD_IMM64 of BPF_PSEUDO_MAP_FD
            place = int.from_bytes(code[start + 4 : start + 8], "little")
            instructions[start + 4 : start + 8] = maps[place].to_bytes(4, "little")
    return bytes(instructions)
