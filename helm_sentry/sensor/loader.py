"""The witness's programs: what they are made of, and whether this host takes them."""

import os
from collections.abc import Mapping

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.errors import FeatureError
from helm_sentry.sensor import programs, records
from helm_sentry.sensor.btf import Types
from helm_sentry.sensor.programs import Loaded, Source

EVENT_BYTES = 1 << 18
"""Size of the ring buffer: eight thousand forks and exits between two looks."""

_THREADS = 1 << 15
_OFFSETS = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
}


def load(cache: str) -> Loaded:
    """Load the witness and attach it.

    Args:
        cache: directory for compiled programs, created if it is not there.

    Raises:
        FeatureError: this host does not allow it; the text says what is missing.
    """
    return programs.load(cache, source())


def source() -> Source:
    """Return what the programs are made of."""
    return Source("witness", ("witness.bpf.c",), ("witness.h",), _sizes(), _offsets)


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
