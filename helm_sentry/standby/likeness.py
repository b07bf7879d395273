"""What a process has from whoever started it and cannot be handed over: by the kernel's word, of any process.

A run that is forked from the standby has all of this from the standby. It is the same run if its caller has the same.
"""

import errno
import os
from collections.abc import Mapping

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.intercept.process_tree import stat_fields

_STATUS = (
    *("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
    *("Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed", "THP_enabled"),
    *("Speculation_Store_Bypass", "SpeculationIndirectBranch"),
)
# Of proc(5); the last three are there only where the kernel was built with them.
_FILES = ("cgroup", "limits", "oom_score_adj", "coredump_filter", "loginuid", "sessionid", "attr/current")
_TERMINAL = 4  # tty_nr among `stat_fields`
_IOPRIO_WHO_PROCESS = 1
_UMASK, _IGNORED = "Umask", "SigIgn"
# The interpreter, its loader and its allocator have read these when they started.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")


def likeness(pid: int) -> dict[str, str]:
    """Return what a process cannot hand over, by name.

    Raises:
        OSError: it is gone, or may not be looked at.
    """
    found = {name: value for name, value in _status(pid).items() if name in _STATUS}
    for name in os.listdir(f"/proc/{pid}/ns"):
        found[f"{name} namespace"] = os.readlink(f"/proc/{pid}/ns/{name}")
    for name in _FILES:
        found[name] = _read(f"/proc/{pid}/{name}")
    root = os.stat(f"/proc/{pid}/root")
    found["root directory"] = f"{root.st_dev} {root.st_ino}"
    found["terminal"] = stat_fields(pid)[_TERMINAL].decode()
    policy, parameter = os.sched_getscheduler(pid), os.sched_getparam(pid)
    found["priority"] = f"{policy} {parameter.sched_priority} {os.getpriority(os.PRIO_PROCESS, pid)}"
    found["priority of files"] = str(_io_priority(pid))
    return found


def difference(mine: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Return the names of what is not the same, empty where everything is."""
    return ", ".join(sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name)))


def of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads once."""
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


def umask_and_ignored(pid: int) -> tuple[int, frozenset[int]]:
    """Return a process's file mode creation mask and the signals it ignores.

    Raises:
        OSError: it is gone.
    """
    status = _status(pid)
    ignored = int(status[_IGNORED], 16)
    return int(status[_UMASK], 8), frozenset(at + 1 for at in range(64) if ignored >> at & 1)


def _io_priority(pid: int) -> int:
    return libc.syscall_result(syscalls.number("ioprio_get", native()), _IOPRIO_WHO_PROCESS, pid, 0, 0, 0, 0)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:
        if error.errno == errno.EINVAL:  # no security module that has attributes
            return ""
        raise


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        lines = file.read().decode("ascii", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
