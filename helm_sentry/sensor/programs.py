"""Getting programs into the kernel: compiled once for each kernel, loaded with bpf(2) ever after.

BCC's compiler takes a third of a second and 130 MB, so it runs in a process of its own, and what it makes is kept in
the state directory under a name that says for which source and which kernel it was made. Loading that takes a few
milliseconds and needs neither BCC nor kernel headers.
"""

import base64
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helm_sentry.abi import flags, libc
from helm_sentry.errors import FeatureError
from helm_sentry.sensor import btf

AHEAD = "/var/lib/helm-sentry/witness"
"""Where root may keep programs that were compiled ahead, for every run of this machine."""

_COMPILE_SECONDS = 120
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_KEPT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRACEPOINT, _HOOK = "on_", "hook_"  # `on_X` runs at raw tracepoint X, `hook_X` at the hook X of security modules
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # <linux/proc_ns.h> PROC_PID_INIT_INO


@dataclass(frozen=True, slots=True)
class Source:
    """What programs are made of.

    Attributes:
        name: of what is kept.
        files: C files, in `sources()`; maps of one name are one map.
        headers: files of `include` that they read.
        sizes: `-D` definitions that do not depend on the kernel.
        offsets: returns the definitions that do, given the kernel's types.
    """

    name: str
    files: tuple[str, ...]
    headers: tuple[str, ...]
    sizes: Mapping[str, int]
    offsets: Callable[[btf.Types], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Ready:
    """Programs that the kernel has taken, and that run nowhere yet.

    Attributes:
        name: says what they were made of, as the name under which they are kept.
        maps: descriptors by name.
        programs: descriptors by tracepoint or hook.
        hooks: which of them are for a hook.
    """

    name: str
    maps: Mapping[str, int]
    programs: Mapping[str, int]
    hooks: frozenset[str]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Everything that it holds."""
        return (*self.programs.values(), *self.maps.values())

    def attach(self) -> "Loaded":
        """Have them run.

        Raises:
            FeatureError: this host does not allow it.
        """
        links: dict[str, int] = {}
        try:
            with _refusals():
                for point, program in self.programs.items():
                    links[point] = libc.bpf_attach("" if point in self.hooks else point, program)
        except BaseException:
            Loaded(self.maps, links).close()
            raise
        finally:
            for program in self.programs.values():
                os.close(program)
        return Loaded(self.maps, links)

    def close(self) -> None:
        """Give them up."""
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Programs in the kernel. They run for as long as the links are open, or pinned.

    Attributes:
        maps: descriptors by name.
        links: descriptors by tracepoint or hook.
    """

    maps: Mapping[str, int]
    links: Mapping[str, int]

    def close(self) -> None:
        """Let go of the programs."""
        for descriptor in (*self.links.values(), *self.maps.values()):
            os.close(descriptor)


def load(cache: str, source: Source) -> Loaded:
    """Load programs and attach them; otherwise as `ready`."""
    return ready(cache, source).attach()


def ready(cache: str, source: Source) -> Ready:
    """Load programs, for somebody to attach.

    Args:
        cache: directory for compiled programs, created if it is not there.
        source: what to load.

    Raises:
        FeatureError: this host does not allow it; the text says what is missing.
    """
    if os.geteuid() != 0:
        raise FeatureError("only root may load bpf programs")
    if os.readlink("/proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
        raise FeatureError("in a container with process ids of its own the kernel's cannot be told apart")
    compiled = _compiled(cache, source)
    with _refusals():
        return _load(kept_name(source), compiled)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Say in a FeatureError what the kernel answered."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPERM:  # EACCES is the verifier's
            raise FeatureError("the kernel refuses bpf programs, even from root") from None
        raise FeatureError(f"the kernel did not take the bpf programs: {error}") from error


def sources() -> str:
    """Return the directory with the sources: beside the package when installed, at the root of a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "bpf")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "bpf")


def compile_ahead(cache: str, source: Source, types: btf.Types, kernel: bytes) -> None:
    """Compile for another kernel than this, and keep it.

    Args:
        cache: directory for compiled programs, created if it is not there.
        source: what to compile.
        types: that kernel's types.
        kernel: what it shows at /sys/kernel/notes.
    """
    _compiled(cache, source, types, kernel)


def kept_name(source: Source, kernel: bytes = b"") -> str:
    """Return the name of compiled programs, which says everything that they depend on.

    Args:
        source: what they are made of.
        kernel: what their kernel shows at /sys/kernel/notes; this one if it is empty.
    """
    return f"{source.name}-{_identity(source, kernel or _this_kernel())}.json"


def are_kept(cache: str, source: Source) -> bool:
    """Whether programs have been compiled, so that to load them is quick."""
    name = kept_name(source)
    return any(os.path.exists(os.path.join(place, name)) for place in (AHEAD, cache))


def _compiled(cache: str, source: Source, types: btf.Types | None = None, kernel: bytes = b"") -> dict[str, Any]:
    name = kept_name(source, kernel)
    if os.path.isdir(AHEAD) and (kept := _read_kept_in(AHEAD, name)) is not None:
        return kept
    os.makedirs(cache, mode=0o700, exist_ok=True)
    directory = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if (kept := read_kept(directory, name)) is not None:
            return kept
        compiled = _compile(source, types or btf.read())
        if _is_ours(directory):
            temporary = f"{name}.{secrets.token_hex(8)}"
            with open(os.open(temporary, _NEW, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
                json.dump(compiled, file)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return compiled
    finally:
        os.close(directory)


def _read_kept_in(place: str, name: str) -> dict[str, Any] | None:
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return read_kept(directory, name)
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


def _this_kernel() -> bytes:
    """Return what only this build of the kernel shows: its notes, among them its build id."""
    try:
        with open("/sys/kernel/notes", "rb") as file:
            return file.read()
    except OSError:
        return repr((os.uname().release, os.uname().version)).encode()


def _identity(source: Source, kernel: bytes) -> str:
    """Return a digest of everything that the compiled programs depend on."""
    digest = hashlib.sha256(kernel + repr(dict(source.sizes)).encode())
    headers = [os.path.join(sources(), "include", name) for name in source.headers]
    offsets = sys.modules[source.offsets.__module__].__file__ or ""
    for path in (*_paths(source), *headers, _compiler(), offsets):
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
        except OSError as error:
            raise FeatureError(f"`{path}` cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:32]


def _paths(source: Source) -> list[str]:
    return [os.path.join(sources(), name) for name in source.files]


def _compiler() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler.py")


def _compile(source: Source, types: btf.Types) -> dict[str, Any]:
    # Imported here: only the first run on a kernel compiles.
    import subprocess

    defines = {**source.sizes, **source.offsets(types)}
    command = [_interpreter(), "-I", _compiler(), *(f"{name}={value}" for name, value in defines.items())]
    try:
        done = subprocess.run(
            [*command, "--", *_paths(source)],
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
    made: dict[str, Any] = json.loads(done.stdout)
    hooks = {name: types.function(f"bpf_lsm_{name.removeprefix(_HOOK)}") for name in made["programs"]}
    # What is for a hook that this kernel does not have is left out.
    made["programs"] = {
        name: {"code": code, "hook": hooks[name]}
        for name, code in made["programs"].items()
        if hooks[name] or not name.startswith(_HOOK)
    }
    return made


def _interpreter() -> str:
    """Return a Python that has BCC: this one, or the system's."""
    if importlib.util.find_spec("bcc") and importlib.util.find_spec("bcc.libbcc"):
        return sys.executable
    if os.path.exists("/usr/lib/python3/dist-packages/bcc/libbcc.py"):
        return "/usr/bin/python3"
    raise FeatureError("bcc is not installed; on debian: apt install python3-bpfcc (`bcc` on pypi is something else)")


def _load(kept: str, compiled: Mapping[str, Any]) -> Ready:
    maps: dict[str, int] = {}
    programs: dict[str, int] = {}
    try:
        for entry in compiled["maps"]:
            maps[entry["name"]] = libc.bpf_map_create(
                entry["type"], entry["key"], entry["value"], entry["entries"], entry["name"], entry["flags"]
            )
        places = list(maps.values())
        for name, entry in compiled["programs"].items():
            point, program = _load_program(name, _with_maps(base64.b64decode(entry["code"]), places), entry["hook"])
            programs[point] = program
    except BaseException:
        Ready(kept, maps, programs, frozenset()).close()
        raise
    hooks = frozenset(name.removeprefix(_HOOK) for name, entry in compiled["programs"].items() if entry["hook"])
    return Ready(kept, maps, programs, hooks)


def _load_program(name: str, code: bytes, hook: int) -> tuple[str, int]:
    if hook:
        point = name.removeprefix(_HOOK)
        return point, libc.bpf_load(code, point, flags.BPF_PROG_TYPE_LSM, flags.BPF_LSM_MAC, hook)
    point = name.removeprefix(_TRACEPOINT)
    return point, libc.bpf_load(code, point, flags.BPF_PROG_TYPE_RAW_TRACEPOINT)


def _with_maps(code: bytes, maps: list[int]) -> bytes:
    """Return the instructions with each map's place in the list replaced by its descriptor."""
    instructions = bytearray(code)
    for start in range(0, len(code), 8):
        if code[start] == 0x18 and code[start + 1] >> 4 == 1:  # <linux/bpf.h> BPF_LD_IMM64 of BPF_PSEUDO_MAP_FD
            place = int.from_bytes(code[start + 4 : start + 8], "little")
            instructions[start + 4 : start + 8] = maps[place].to_bytes(4, "little")
    return bytes(instructions)
