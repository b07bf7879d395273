"""The witness's programs: what they are made of, and whether this host takes them."""

import os
from collections.abc import Mapping

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.errors import FeatureError
from helm_sentry.operation import Kind
from helm_sentry.sensor import programs, records
from helm_sentry.sensor.btf import Types
from helm_sentry.sensor.programs import Loaded, Ready, Source

EVENT_BYTES = 1 << 18
"""Size of the ring buffer: eight thousand forks and exits between two looks."""

OPEN_BYTES = 1 << 23
"""Size of the ring buffer for opens: some eighty thousand of them between two looks."""

_THREADS = 1 << 15
_OFFSETS = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
}
_OPEN_OFFSETS = {
    "TASK_FILES": ("task_struct", "files"),
    "FILES_TABLE": ("files_struct", "fdt"),
    "TABLE_FILES": ("fdtable", "fd"),
    "FILE_PATH": ("file", "f_path"),
    "FILE_INODE": ("file", "f_inode"),
    "DENTRY_PARENT": ("dentry", "d_parent"),
    "DENTRY_NAME": ("dentry", "d_name"),
    "ROOT_OF_MOUNT": ("vfsmount", "mnt_root"),
    "MOUNT_SELF": ("mount", "mnt"),
    "MOUNT_PARENT": ("mount", "mnt_parent"),
    "MOUNT_POINT": ("mount", "mnt_mountpoint"),
    "INODE_MODE": ("inode", "i_mode"),
    "INODE_SB": ("inode", "i_sb"),
    "INODE_NUMBER": ("inode", "i_ino"),
    "SB_DEVICE": ("super_block", "s_dev"),
    "SB_MAGIC": ("super_block", "s_magic"),
}


_ahead: list[Ready] = []


def load(cache: str, kernel: frozenset[Kind] = frozenset()) -> Loaded:
    """Load the witness and attach it.

    Args:
        cache: directory for compiled programs, created if it is not there.
        kernel: kinds that the kernel holds by itself: it also reports what is opened by calls that the supervisor
            does not see.

    Raises:
        FeatureError: this host does not allow it; the text says what is missing.
    """
    if _ahead and not kernel:
        ready = _ahead.pop()
        if ready.name == programs.kept_name(source()):
            return ready.attach()
        ready.close()  # the sources are others by now
    return _ready(cache, kernel).attach()


def load_ahead(cache: str) -> tuple[int, ...]:
    """Do what takes long of `load`, for the run that this process becomes; nothing where it takes a compiler.

    Until `load` attaches the programs they are memory of the kernel's, and run nowhere.

    Returns:
        Descriptors, which must stay open.
    """
    try:
        if programs.are_kept(cache, source()):
            _ahead.append(_ready(cache, frozenset()))
    except FeatureError:
        return ()  # the run says so
    return tuple(descriptor for ready in _ahead for descriptor in ready.descriptors)


def _ready(cache: str, kernel: frozenset[Kind]) -> Ready:
    """Return the programs with the table of syscalls, as the run's filter has it."""
    ready, arch = programs.ready(cache, source(bool(kernel))), native()
    try:
        rows, tests = records.filter_tables(syscalls.table_beside(arch, kernel), arch.argument_offsets)
        for name, entries in (("rows", rows.items()), ("tests", enumerate(tests))):
            for place, value in entries:
                libc.bpf_map_update(ready.maps[name], place.to_bytes(4, "little"), value)
    except BaseException:
        ready.close()
        raise
    return ready


def source(opens: bool = False) -> Source:
    """Return what the programs are made of, with `opens` those that report opens, too."""
    if not opens:
        return Source("witness", ("witness.bpf.c",), ("witness.h",), _sizes(), _offsets)
    sizes = _sizes() | {
        "OPEN_PAGES": OPEN_BYTES // os.sysconf("SC_PAGE_SIZE"),
        "FIRST_ARGUMENT_AFTER": native().first_argument_after,
    }
    return Source("opens", ("witness.bpf.c",), ("witness.h", "opens.h"), sizes, _offsets_for_opens)


def unavailable(cache: str) -> str:
    """Return why there can be no witness here, found by loading one; empty when there can."""
    try:
        load(cache).close()
    except FeatureError as error:
        return str(error)
    return ""


def _sizes() -> dict[str, int]:
    pages = EVENT_BYTES // os.sysconf("SC_PAGE_SIZE")
    arch = native()
    numbers = {f"NR_{name.upper()}": syscalls.number(name, arch) for name in ("seccomp", "prctl")}
    return numbers | {
        "THREADS": _THREADS,
        "ROWS": records.ROWS,
        "TESTS": records.TESTS,
        "TESTS_OF_ROW": records.TESTS_OF_ROW,
        "EVENT_PAGES": pages,
        "FIRST_ARGUMENT": arch.argument_offsets[0],
    }


def _offsets(kernel: Types) -> Mapping[str, int]:
    offsets = {name: kernel.offset(*member) for name, member in _OFFSETS.items()}
    if native().name == "x86_64":
        offsets["TASK_STATUS"] = kernel.offset("task_struct", "thread_info") + kernel.offset("thread_info", "status")
    return offsets


def _offsets_for_opens(kernel: Types) -> Mapping[str, int]:
    offsets = {**_offsets(kernel), **{name: kernel.offset(*member) for name, member in _OPEN_OFFSETS.items()}}
    try:
        offsets["DENTRY_SHORT"] = kernel.offset("dentry", "d_shortname")  # since Linux 6.14
    except FeatureError:
        offsets["DENTRY_SHORT"] = kernel.offset("dentry", "d_iname")
    return offsets
