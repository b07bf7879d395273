"""What the kernel programs and the supervisor share, as `bpf/include/witness.h` lays it out. Pure.

A test compiles that header and compares every offset.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

from helm_sentry.abi.syscalls import Row, Treatment

TASK = struct.Struct("=IIIIQ")
"""struct task: role, state, syscall, unused, removals."""

ROW = struct.Struct("=HHHHI")
"""struct row: treatment, flags, first, count, path."""

TEST = struct.Struct("=QQII")
"""struct test: value, mask, offset, operator."""

EVENT = struct.Struct("=IIIiQ")
"""struct event: type, pid, parent, status, time."""

AGENT = TASK.pack(1, 1, 0, 0, 0)
"""A thread of the agent that is inside a syscall."""

PROBE = TASK.pack(2, 0, 0, 0, 0)
"""A thread of the supervisor by whose calls it sees that the programs run."""

FORK, EXIT = 1, 2
"""Types of events."""

ROWS = 1024
"""Entries of the table of syscalls; the numbers of both architectures end below 512."""

TESTS, TESTS_OF_ROW = 64, 32
"""How many tests there may be, and how many of them for one syscall."""

_ALLOW, _TEST, _NOTIFY = 1, 2, 0
_OPENS, _REMOVES = 1, 2
_REMOVING = frozenset({"close", "close_range", "dup2", "dup3"})
_OPERATORS = {"=": 0, "!=": 1, "&": 2, "~": 3}


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel counted; `bpf/include/witness.h` says what each is."""

    finished: int = 0
    interrupted: int = 0
    carried: int = 0
    forks: int = 0
    threads: int = 0
    execs: int = 0
    exits: int = 0
    own_filters: int = 0
    held: int = 0
    lost_opens: int = 0
    lost_events: int = 0
    lost_tasks: int = 0
    entries_seen: int = 0
    exits_seen: int = 0


COUNTS = struct.Struct(f"={len(fields(Counts))}Q")
"""struct counts of one processor."""


def total(data: bytes) -> Counts:
    """Return the sum over all processors."""
    return Counts(*(sum(column) for column in zip(*COUNTS.iter_unpack(data), strict=True)))


def difference(after: Counts, before: Counts) -> Counts:
    """Return what was counted in between."""
    return Counts(*(a - b for a, b in zip(astuple(after), astuple(before), strict=True)))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a process of the agent.

    Attributes:
        type: `FORK` or `EXIT`.
        pid: the process.
        parent: for FORK, the process that made it.
        status: for EXIT, its wait status.
        time: nanoseconds since the machine was started.
    """

    type: int
    pid: int
    parent: int
    status: int
    time: int


def event(data: bytes) -> Event:
    """Return the event in a ring buffer's record."""
    return Event(*EVENT.unpack(data))


def filter_tables(table: Mapping[int, Row], registers: tuple[int, ...]) -> tuple[dict[int, bytes], list[bytes]]:
    """Return the syscall table as the programs read it: rows by number, and the tests they refer to.

    A number without a row is notified, as the filter has it.

    Args:
        table: rows by number.
        registers: where `struct pt_regs` keeps the arguments.
    """
    rows: dict[int, bytes] = {}
    tests: list[bytes] = []
    for number, row in table.items():
        treatment = _ALLOW if row.treatment is Treatment.ALLOW else _TEST if row.tests else _NOTIFY
        path = next((at for at, argument in enumerate(row.arguments) if argument.kind == "path"), 0)
        marks = _OPENS if row.held else _REMOVES if row.name in _REMOVING else 0
        rows[number] = ROW.pack(treatment, marks, len(tests), len(row.tests), registers[path])
        tests += _tests(row, registers)
    return rows, tests


def _tests(row: Row, registers: tuple[int, ...]) -> Iterable[bytes]:
    for test in row.tests:
        # The filter compares whole words, 32 or 64 bits, whatever the kernel reads of them.
        mask = (1 << 64) - 1 if test.wide else (1 << 32) - 1
        yield TEST.pack(test.value, mask, registers[test.argument], _OPERATORS[test.operator])
