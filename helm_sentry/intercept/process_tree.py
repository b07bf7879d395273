"""Who belongs to the agent: every process below the guardian, read from /proc when asked.

Nothing is cached: a cached process id is somebody else's process id one fork later.
"""

import contextlib
import os
from collections.abc import Iterator

_MOST_ANCESTORS = 16


def status_field(pid: int, field: str) -> str:
    """Return one field of /proc/PID/status.

    Args:
        pid: process or thread id.
        field: name as proc(5) gives it, such as `Tgid`.

    Raises:
        ProcessLookupError: no such process or thread.
    """
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError as error:
        raise ProcessLookupError(error.errno, f"process {pid} is gone") from None
    start = text.find(b"\n" + field.encode() + b":\t")
    if start < 0:
        raise ProcessLookupError(0, f"process {pid} is gone")
    start += len(field) + 3
    return text[start : text.find(b"\n", start)].decode("ascii", "replace").strip()


def thread_group(tid: int) -> int:
    """Return the process id of a thread."""
    return int(status_field(tid, "Tgid"))


def umask_of(tid: int) -> int:
    """Return the file mode creation mask of a thread."""
    return int(status_field(tid, "Umask"), 8)


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the command name: state, ppid, pgrp, session, tty_nr … (proc(5)).

    Raises:
        ProcessLookupError: no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
    except OSError as error:
        raise ProcessLookupError(error.errno, f"process {pid} is gone") from None
    return text[text.rfind(b")") + 2 :].split()  # the name may contain anything, parentheses too


def ancestors(pid: int, root: int) -> list[int]:
    """Return the processes above one, the nearest first, up to `root` and without it; a few of them at most."""
    found: list[int] = []
    with contextlib.suppress(ProcessLookupError):
        while len(found) < _MOST_ANCESTORS and (pid := parent_of(pid)) not in (0, 1, root):
            found.append(pid)
    return found


def parent_of(pid: int) -> int:
    """Return the parent process id."""
    return int(stat_fields(pid)[1])


def is_descendant(pid: int, ancestor: int) -> bool:
    """Whether `pid` (a process or thread id) is below `ancestor`; False for one that is gone."""
    try:
        current = thread_group(pid)
        while current > 1:
            current = parent_of(current)
            if current == ancestor:
                return True
    except (ProcessLookupError, ValueError):
        return False
    return False


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    """Yield the id and `stat_fields` of every process there is, zombies included."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield int(name), stat_fields(int(name))
            except (ProcessLookupError, IndexError):
                continue  # gone between the listing and the look


def descendants(ancestor: int) -> list[int]:
    """Return the process ids below `ancestor`, zombies left out."""
    parents = {pid: int(fields[1]) for pid, fields in _processes() if _runs(fields)}
    found, frontier = [], {ancestor}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += sorted(frontier)
    return found


def _runs(fields: list[bytes]) -> bool:
    """Whether anything of a process still runs: one whose first thread has ended is a zombie with other threads."""
    return fields[0] not in (b"Z", b"X") or int(fields[17]) > 1


def group_members(group: int) -> list[int]:
    """Return the process ids of a process group."""
    return [pid for pid, fields in _processes() if int(fields[2]) == group]
