"""What kernel and supervisor share: the header's layout, and the filter's verdicts out of its tables."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helm_sentry.abi import flags, syscalls
from helm_sentry.abi.arch import AARCH64, X86_64, Arch
from helm_sentry.launch.filter import build
from helm_sentry.operation import Kind
from helm_sentry.sensor import opened, records
from helm_sentry.sensor.records import Counts
from tests.cbpf import load, run, seccomp_data

HEADER = Path(__file__).resolve().parents[3] / "bpf/include/witness.h"
STRUCTURES = {
    "task": (records.TASK, ["role", "state", "syscall", "unused", "removals"]),
    "row": (records.ROW, ["treatment", "flags", "first", "count", "path"]),
    "test": (records.TEST, ["value", "mask", "offset", "operator"]),
    "event": (records.EVENT, ["type", "pid", "parent", "status", "time"]),
    "opened": (
        opened.HEAD,
        ["tid", "result", "syscall", "flags", "mode", "device", "inode", "magic", "directory", "size"],
    ),
    "counts": (records.COUNTS, list(Counts.__slots__)),
}
CONSTANTS = {
    "ROLE_AGENT": 1,
    "ROLE_PROBE": 2,
    "STATE_ENTERED": 1,
    "TREAT_NOTIFY": records._NOTIFY,
    "TREAT_ALLOW": records._ALLOW,
    "TREAT_TEST": records._TEST,
    "EVENT_FORK": records.FORK,
    "EVENT_EXIT": records.EXIT,
    "ROW_OPENS": records._OPENS,
    "ROW_REMOVES": records._REMOVES,
    "OPENED_UNSURE": opened.UNSURE,
    "OPENED_DEEP": opened.DEEP,
    "OPENED_UNNAMED": opened.UNNAMED,
    "OPENED_LOST": opened.LOST,
    "OP_EQUAL": records._OPERATORS["="],
    "OP_DIFFERENT": records._OPERATORS["!="],
    "OP_ANY_BIT": records._OPERATORS["&"],
    "OP_SOME_BITS": records._OPERATORS["~"],
}


def compiles(assertions: list[str], header: Path = HEADER) -> subprocess.CompletedProcess[str]:
    source = f'#include "{header}"\n' + "".join(f'_Static_assert({text}, "{text}");\n' for text in assertions)
    return subprocess.run(
        ["cc", "-fsyntax-only", "-x", "c", "-"], input=source, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", STRUCTURES)
def test_layout_is_the_headers(name: str) -> None:
    layout, members = STRUCTURES[name]
    width = {"I": 4, "Q": 8, "H": 2, "i": 4}
    letters = "Q" * len(members) if name == "counts" else layout.format.lstrip("=")
    place, assertions = 0, [f"sizeof(struct {name}) == {layout.size}"]
    if name == "opened":  # the text follows
        assertions = [f"__builtin_offsetof(struct opened, text) == {layout.size}"]
    for member, letter in zip(members, letters, strict=True):
        assertions.append(f"__builtin_offsetof(struct {name}, {member}) == {place}")
        place += width[letter]
    done = compiles(assertions)
    assert done.returncode == 0, done.stderr
    swapped = compiles([f"__builtin_offsetof(struct {name}, {members[0]}) == 2"])
    assert swapped.returncode != 0  # the control: a wrong layout is found


def test_constants_are_the_headers() -> None:
    done = compiles([f"{name} == {value}" for name, value in CONSTANTS.items()])
    assert done.returncode == 0, done.stderr


def notified(rows: dict[int, bytes], tests: list[bytes], registers: dict[int, int], number: int) -> bool:
    """What the program in the kernel makes of the tables."""
    treatment, _, first, count, _ = records.ROW.unpack(rows.get(number, bytes(records.ROW.size)))
    if treatment != records._TEST:
        return treatment == records._NOTIFY
    for packed in tests[first : first + count]:
        value, mask, offset, operator = records.TEST.unpack(packed)
        found = registers[offset] & mask
        holds = {0: found == value, 1: found != value, 2: found & value != 0, 3: found & value not in (0, value)}
        if holds[operator]:
            return True
    return False


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
def test_tables_fit_the_maps(arch: Arch) -> None:
    rows, tests = records.filter_tables(syscalls.table(arch), arch.argument_offsets)
    assert max(rows) < records.ROWS
    assert len(tests) <= records.TESTS
    assert max(records.ROW.unpack(row)[3] for row in rows.values()) <= records.TESTS_OF_ROW


@pytest.mark.parametrize("held", [frozenset(), syscalls.HELD_KINDS], ids=["seccomp tier", "kernel tier"])
@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_tables_and_filter_agree_on_every_call(arch: Arch, held: frozenset[Kind], data: st.DataObject) -> None:
    """The kernel counts as mediated exactly what the filter sends to the supervisor."""
    table = syscalls.table_beside(arch, held)
    interesting = [test.value for row in table.values() for test in row.tests]
    tested = [number for number, row in table.items() if row.tests]
    number = data.draw(st.sampled_from(tested) | st.integers(0, records.ROWS - 1))
    word = st.sampled_from([*interesting, 0, 1, 1 << 32, 0xFFFFFFFF]) | st.integers(0, (1 << 64) - 1)
    arguments = data.draw(st.tuples(*[word] * 6))
    by_filter = run(load(build(arch, table)), seccomp_data(number, arch.audit_arch, arguments))
    rows, tests = records.filter_tables(table, arch.argument_offsets)
    assert notified(rows, tests, dict(zip(arch.argument_offsets, arguments, strict=True)), number) == (
        by_filter == flags.SECCOMP_RET_USER_NOTIF
    )


def test_counts_are_summed_over_processors() -> None:
    one = records.COUNTS.pack(*range(len(Counts.__slots__)))
    assert records.total(one * 3) == Counts(*(3 * value for value in range(len(Counts.__slots__))))
