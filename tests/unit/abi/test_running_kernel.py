"""The syscall table against the kernel that runs here, which may be newer than the installed headers."""

import ctypes
import errno
import os
import platform
import re
from pathlib import Path

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native

PREFIX = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}
# Entry points of 64-bit calls whose number has another name, then those that only 32-bit programs can reach:
# 16-bit ids, 32-bit times, split 64-bit arguments, and what the 64-bit table never had.
OTHER_NAMES = {"newfstat", "newlstat", "newstat", "newuname", "sendfile64", "fadvise64_64", "umount", "mmap_pgoff"}
OF_32_BITS = re.compile(
    r".*16|.*time(s|sat)?_?32|.*_time32|ia32_.*|clock_\w+32|timerf?d?_[gs]ettime32|statfs64|fstatfs64"
)
NEVER = {
    *("gethostname", "io_getevents_time32", "llseek", "ni_syscall", "nice", "old_getrlimit", "old_readdir", "recv"),
    *("oldumount", "olduname", "send", "sgetmask", "signal", "sigpending", "sigprocmask", "sigsuspend", "socketcall"),
    *("ssetmask", "stime", "stime32", "sync_file_range2", "utime32", "waitpid", "clock_adjtime32", "futex_time32"),
}
NEWEST_KNOWN = (6, 19)  # what the table was checked with; a newer kernel's calls are refused until they have a row
BEYOND = 32


def release() -> tuple[int, int]:
    major, minor = re.match(r"(\d+)\.(\d+)", platform.release()).groups()
    return int(major), int(minor)


@pytest.fixture
def known_kernel() -> None:
    if release() > NEWEST_KNOWN or platform.system() != "Linux":
        pytest.skip(f"Linux {platform.release()} is newer than the table")


def entry_points() -> set[str]:
    """Names of the calls that are compiled into this kernel."""
    symbols = Path("/proc/kallsyms").read_text()
    return set(re.findall(rf" T {PREFIX[native().name]}(\w+)", symbols))


@pytest.mark.usefixtures("known_kernel")
def test_every_call_of_this_kernel_has_a_row() -> None:
    compiled = entry_points()
    if not compiled:
        pytest.skip("this kernel does not name its symbols")
    assert len(compiled) > 300
    rows = {row.name for row in syscalls.table(native()).values()}
    unknown = {name for name in compiled - rows - OTHER_NAMES - NEVER if not OF_32_BITS.fullmatch(name)}
    assert unknown == set()
    assert {"openat", "execveat"} <= rows & compiled


@pytest.mark.usefixtures("known_kernel")
def test_this_kernel_has_no_number_beyond_the_table() -> None:
    """No argument is sensible, so that a call that were there would fail with another error."""
    libc = ctypes.CDLL(None, use_errno=True)
    wild = [ctypes.c_ulong(2**64 - 1)] * 6
    newest = max(syscalls.table(native()))
    answers = set()
    for number in range(newest + 1, newest + BEYOND):
        assert libc.syscall(ctypes.c_long(number), *wild) == -1
        answers.add(errno.errorcode[ctypes.get_errno()])
    assert answers == {"ENOSYS"}
    assert os.getpid() == libc.syscall(ctypes.c_long(syscalls.number("getpid", native()))), "the control"
