"""The seccomp filter, run by an interpreter of its own: every row of the table on both architectures."""

import errno
import os
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import AARCH64, ARCHES, X86_64, Arch
from helm_sentry.abi.flags import (
    O_PATH,
    O_TMPFILE_BIT,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_USER_NOTIF,
)
from helm_sentry.abi.syscalls import Row, Treatment
from helm_sentry.launch import filter as seccomp_filter
from helm_sentry.operation import Kind
from tests import cbpf

ALLOW, NOTIFY = SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
I386, ARM = 0x40000003, 0x40000028  # <linux/audit.h>
U64 = (1 << 64) - 1
HIGH = 0xDEADBEEF << 32
NONE = (0,) * 6
LOADED = {arch: cbpf.load(seccomp_filter.build(arch, syscalls.table(arch))) for arch in ARCHES.values()}
BOTH = pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
COLUMNS = "name,class,operation,args,x86_64,aarch64,treatment,when,errno,continue_reason,reason"


def verdict(arch: Arch, number: int, arguments: tuple[int, ...] = NONE, audit_arch: int | None = None) -> int:
    found = arch.audit_arch if audit_arch is None else audit_arch
    return cbpf.run(LOADED[arch], cbpf.seccomp_data(number, found, arguments))


def call(arch: Arch, name: str, *arguments: int) -> int:
    return verdict(arch, syscalls.number(name, arch), (*arguments, *NONE)[:6])


# The naive twin: what a verdict should be, told without jumps and words.


def holds(test: syscalls.Test, arguments: tuple[int, ...]) -> bool:
    value = arguments[test.argument] & (U64 if test.wide else 0xFFFFFFFF)
    if test.operator == "=":
        return value == test.value
    if test.operator == "!=":
        return value != test.value
    if test.operator == "&":
        return value & test.value != 0
    return value & test.value not in (0, test.value)


def expected(arch: Arch, table: Mapping[int, Row], number: int, audit_arch: int, arguments: tuple[int, ...]) -> int:
    row = table.get(number) if audit_arch == arch.audit_arch else None
    if row is None:
        return NOTIFY
    if row.treatment is Treatment.ALLOW:
        return ALLOW
    return NOTIFY if not row.tests or any(holds(test, arguments) for test in row.tests) else ALLOW


def interesting(table: Mapping[int, Row]) -> list[int]:
    """Argument values at the edges of what the table tests for."""
    values = {test.value for row in table.values() for test in row.tests}
    near = {value + step for value in values for step in (-1, 0, 1)} | {0, 1, U64, 1 << 31, 1 << 32, 1 << 63}
    return sorted({value & U64 for value in near} | {(value ^ HIGH) & U64 for value in near})


def numbers(arch: Arch) -> st.SearchStrategy[int]:
    table = syscalls.table(arch)
    known, tested = st.sampled_from(sorted(table)), st.sampled_from([key for key in sorted(table) if table[key].tests])
    other = st.one_of(
        st.integers(-(1 << 31), (1 << 31) - 1), known.map(lambda key: key | 0x40000000), st.integers(0, 2048)
    )
    return st.one_of(tested, tested, known, other)


class TestEveryRow:
    """Against the naive twin."""

    @BOTH
    @given(data=st.data())
    def test_filter_and_twin_agree(self, arch: Arch, data: st.DataObject) -> None:
        table = syscalls.table(arch)
        values = st.one_of(st.sampled_from(interesting(table)), st.integers(0, U64))
        number = data.draw(numbers(arch))
        arguments = data.draw(st.tuples(*[values] * 6))
        audit_arch = data.draw(
            st.sampled_from([arch.audit_arch] * 8 + [X86_64.audit_arch, AARCH64.audit_arch, I386, 0])
        )
        assert verdict(arch, number, arguments, audit_arch) == expected(arch, table, number, audit_arch, arguments)

    @BOTH
    def test_each_number_with_plain_arguments(self, arch: Arch) -> None:
        table = syscalls.table(arch)
        for number in range(1200):
            for arguments in (NONE, (U64,) * 6, (1,) * 6, (HIGH,) * 6):
                wanted = expected(arch, table, number, arch.audit_arch, arguments)
                assert verdict(arch, number, arguments) == wanted, (number, arguments)
                if number in table:
                    assert table[number].notified(arguments) == (wanted == NOTIFY), (number, arguments)

    @BOTH
    def test_what_is_always_allowed_is_told_by_its_number(self, arch: Arch) -> None:
        """The kernel then keeps the answer, and the call costs no more than under an empty filter (kernel/seccomp.c,
        `seccomp_is_const_allow`: no load but of the number and the architecture on the way)."""
        for number, row in syscalls.table(arch).items():
            no_arguments = cbpf.seccomp_data(number, arch.audit_arch, NONE)[:8]
            if row.treatment is Treatment.ALLOW:
                assert cbpf.run(LOADED[arch], no_arguments) == ALLOW, row.name
            elif row.tests:
                with pytest.raises(struct.error):  # they are not there to be read
                    cbpf.run(LOADED[arch], no_arguments)

    @BOTH
    def test_each_condition_at_its_edges(self, arch: Arch) -> None:
        table = syscalls.table(arch)
        checked = 0
        for number, row in table.items():
            for test in row.tests:
                for value in interesting({number: row}):
                    arguments = tuple(value if place == test.argument else 0 for place in range(6))
                    wanted = expected(arch, table, number, arch.audit_arch, arguments)
                    assert verdict(arch, number, arguments) == wanted, (row.name, test, value)
                    assert row.notified(arguments) == (wanted == NOTIFY), (row.name, test, value)
                    checked += 1
        assert checked > 1000

    @BOTH
    def test_treatments(self, arch: Arch) -> None:
        """Not by the twin but by the word in the table: what is allowed is never notified, and the rest can be."""
        for number, row in syscalls.table(arch).items():
            if row.treatment is Treatment.ALLOW:
                assert verdict(arch, number, (U64,) * 6) == ALLOW, row.name
            elif not row.tests:
                assert verdict(arch, number) == NOTIFY, row.name


class TestStrangers:
    """Whatever is not a known number of the agent's own ABI is notified."""

    @BOTH
    @pytest.mark.parametrize("audit_arch", [I386, ARM, 0, 0xFFFFFFFF, "other"])
    def test_another_abi(self, arch: Arch, audit_arch: int | str) -> None:
        other = (AARCH64 if arch is X86_64 else X86_64).audit_arch
        found = other if audit_arch == "other" else int(audit_arch)
        assert {verdict(arch, number, NONE, found) for number in range(-2, 600)} == {NOTIFY}

    def test_every_number_of_x32(self) -> None:
        assert {verdict(X86_64, 0x40000000 | number) for number in range(2048)} == {NOTIFY}

    @BOTH
    def test_numbers_beyond_the_table(self, arch: Arch) -> None:
        newest = max(syscalls.table(arch))
        strangers = [-1, -2, -(1 << 31), newest + 1, newest + 2, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 1 << 16]
        assert {verdict(arch, number) for number in strangers} == {NOTIFY}

    @BOTH
    def test_gaps_in_the_table(self, arch: Arch) -> None:
        table = syscalls.table(arch)
        gaps = [number for number in range(max(table)) if number not in table]
        assert gaps
        assert {verdict(arch, number) for number in gaps} == {NOTIFY}

    def test_numbers_of_the_other_architecture_mean_nothing(self) -> None:
        assert verdict(AARCH64, syscalls.number("open", X86_64)) != verdict(X86_64, syscalls.number("open", X86_64))


class TestWords:
    """The kernel reads 32 bits of an `int` and 64 of a pointer; so must a test."""

    @BOTH
    def test_the_high_word_of_an_int_hides_nothing(self, arch: Arch) -> None:
        for high in (0, HIGH, 1 << 32, 0xFFFFFFFF << 32):
            assert call(arch, "ioctl", 0, high | 0x5412) == NOTIFY  # TIOCSTI
            assert call(arch, "ioctl", 0, high | 0x5401) == ALLOW  # TCGETS
            assert call(arch, "fcntl", 0, high | 1024) == NOTIFY  # F_SETLEASE
            assert call(arch, "fcntl", 0, high | 3) == ALLOW
            assert call(arch, "seccomp", 1, high | 8) == NOTIFY
            assert call(arch, "seccomp", 1, high | 1) == ALLOW
            assert call(arch, "personality", high | 0x40000) == NOTIFY
            assert call(arch, "personality", high | 0xFFFFFFFF) == ALLOW
            assert call(arch, "personality", high) == ALLOW
            assert call(arch, "prlimit64", high | 7) == NOTIFY
            assert call(arch, "prlimit64", high) == ALLOW
            assert call(arch, "setsockopt", 3, high, 4) == NOTIFY
            assert call(arch, "setsockopt", 3, high | 41, 57) == NOTIFY  # IPPROTO_IPV6, IPV6_RTHDR
            assert call(arch, "setsockopt", 3, high | 1, 4) == ALLOW
            assert call(arch, "socketpair", high | 1, 1, 0) == ALLOW
            assert call(arch, "socketpair", high | 30, 1, 0) == NOTIFY  # TIPC, which can be had without connect

    @BOTH
    def test_the_high_word_of_a_long_counts(self, arch: Arch) -> None:
        for address in (1, 1 << 31, 1 << 32, 1 << 63, HIGH):
            assert call(arch, "sendto", 3, 0, 0, 0, address) == NOTIFY
        assert call(arch, "sendto", 3, 0, 0, 0x4000, 0) == ALLOW
        assert call(arch, "sendto", 3, 0, 0, HIGH | 0x20000000, 0) == NOTIFY  # MSG_FASTOPEN
        assert call(arch, "sendto", 3, 0, 0, HIGH, 0) == ALLOW
        assert call(arch, "clone", 0x10000000) == NOTIFY  # CLONE_NEWUSER
        assert call(arch, "clone", HIGH | 0x10000000) == NOTIFY
        assert call(arch, "clone", 0x3D0F00) == ALLOW  # a thread
        assert call(arch, "unshare", 0x400) == ALLOW  # CLONE_FILES
        assert call(arch, "unshare", 1 << 32) == NOTIFY
        assert call(arch, "unshare", 0x10000400) == NOTIFY

    def test_the_other_arguments_do_not_matter(self) -> None:
        assert verdict(X86_64, syscalls.number("ioctl", X86_64), (U64, 0x5401, U64, U64, U64, U64)) == ALLOW


def table_of(*rows: str) -> Mapping[int, Row]:
    return {
        row.numbers["x86_64"]: row
        for row in syscalls.parse("\n".join([COLUMNS, *(f"{row},why" for row in rows)]) + "\n")
    }


def verdicts(table: Mapping[int, Row], number: int, *arguments: int) -> int:
    program = cbpf.load(seccomp_filter.build(X86_64, table))
    return cbpf.run(program, cbpf.seccomp_data(number, X86_64.audit_arch, (*arguments, *NONE)[:6]))


class TestBuild:
    """Other tables than the shipped one."""

    # No row asks for `~` of a long, and a test of the table says so.
    @pytest.mark.parametrize(
        ("kind", "operator"),
        [(kind, operator) for kind in ("uint", "ulong") for operator in ("=", "!=", "&")] + [("uint", "~")],
    )
    @given(
        value=st.sampled_from([0, 1, 0x80000000, 0xFFFFFFFF, 0x5412]),
        argument=st.integers(0, U64),
        spread=st.booleans(),
    )
    def test_every_operator(self, kind: str, operator: str, value: int, argument: int, spread: bool) -> None:
        wide = value << 32 | value if spread and kind == "ulong" else value
        table = table_of(f"f,file,file.read,a:int b:{kind},7,,deny,b{operator}{wide},EPERM,")
        for number in (argument, wide, wide ^ 1, wide | HIGH, wide & HIGH, 0):
            arguments = (0, number, *NONE)[:6]
            assert verdicts(table, 7, *arguments) == expected(X86_64, table, 7, X86_64.audit_arch, arguments)

    @given(st.sets(st.integers(0, 400), min_size=1), st.sets(st.integers(0, 400)))
    def test_any_set_of_numbers(self, allowed: set[int], denied: set[int]) -> None:
        rows = [f"a{number},file,,,{number},,allow,,," for number in sorted(allowed)]
        rows += [f"d{number},file,file.read,,{number},,deny,,EPERM," for number in sorted(denied - allowed)]
        program = cbpf.load(seccomp_filter.build(X86_64, table_of(*rows)))
        for number in range(403):
            found = cbpf.run(program, cbpf.seccomp_data(number, X86_64.audit_arch, NONE))
            assert found == (ALLOW if number in allowed else NOTIFY)

    def test_an_operator_without_code_is_an_error(self) -> None:
        row = Row("f", "file", None, (), Treatment.DENY, (syscalls.Test(0, False, "<", 1),), 1, "", {"x86_64": 1})
        with pytest.raises(ValueError, match="no filter code for the test operator `<`"):
            seccomp_filter.build(X86_64, {1: row})

    @BOTH
    def test_the_kernel_takes_the_program(self, arch: Arch) -> None:
        program = seccomp_filter.build(arch, syscalls.table(arch))
        assert len(program) == 8 * len(cbpf.load(program))
        assert len(program) // 8 < cbpf.MAX_INSTRUCTIONS // 4  # far from the limit

    @BOTH
    def test_only_two_verdicts(self, arch: Arch) -> None:
        assert {each.operand for each in LOADED[arch] if each.kind == cbpf.RETURN} == {ALLOW, NOTIFY}


def packed(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *each) for each in instructions)


RETURN_A, RETURN_7 = (0x16, 0, 0, 0), (0x06, 0, 0, 7)


class TestInterpreter:
    """The interpreter that judges the filter is judged too."""

    @pytest.mark.parametrize(
        ("program", "result"),
        [
            ([(0x20, 0, 0, 0), RETURN_A], 5),  # nr
            ([(0x20, 0, 0, 4), RETURN_A], 9),  # arch
            ([(0x20, 0, 0, 16), RETURN_A], 0x89ABCDEF),  # the low word of the first argument
            ([(0x20, 0, 0, 20), RETURN_A], 0x01234567),
            ([(0x80, 0, 0, 0), RETURN_A], 64),
            ([(0x00, 0, 0, 6), (0x54, 0, 0, 3), RETURN_A], 2),
            ([(0x00, 0, 0, 6), (0x44, 0, 0, 1), RETURN_A], 7),
            ([(0x00, 0, 0, 1), (0x14, 0, 0, 2), RETURN_A], 0xFFFFFFFF),
            ([(0x00, 0, 0, 1), (0x64, 0, 0, 31), (0x64, 0, 0, 1), RETURN_A], 0),
            ([(0x00, 0, 0, 3), (0x84, 0, 0, 0), RETURN_A], 0xFFFFFFFD),
            ([(0x00, 0, 0, 3), (0x02, 0, 0, 5), (0x00, 0, 0, 0), (0x60, 0, 0, 5), RETURN_A], 3),
            ([(0x00, 0, 0, 3), (0x07, 0, 0, 0), (0x00, 0, 0, 4), (0x0C, 0, 0, 0), RETURN_A], 7),
            ([(0x01, 0, 0, 8), (0x87, 0, 0, 0), RETURN_A], 8),
            ([(0x00, 0, 0, 1), (0x05, 0, 0, 1), (0x06, 0, 0, 1), RETURN_7], 7),
            ([(0x00, 0, 0, 4), (0x15, 0, 1, 4), RETURN_7, RETURN_A], 7),
            ([(0x00, 0, 0, 4), (0x15, 0, 1, 5), RETURN_7, RETURN_A], 4),
            ([(0x00, 0, 0, 4), (0x25, 0, 1, 4), RETURN_7, RETURN_A], 4),
            ([(0x00, 0, 0, 4), (0x35, 0, 1, 4), RETURN_7, RETURN_A], 7),
            ([(0x00, 0, 0, 4), (0x45, 0, 1, 12), RETURN_7, RETURN_A], 7),
            ([(0x00, 0, 0, 4), (0x45, 0, 1, 3), RETURN_7, RETURN_A], 4),
        ],
    )
    def test_instructions(self, program: list[tuple[int, int, int, int]], result: int) -> None:
        data = cbpf.seccomp_data(5, 9, (0x0123456789ABCDEF, 0, 0, 0, 0, 0))
        assert cbpf.run(cbpf.load(packed(*program)), data) == result

    @pytest.mark.parametrize(
        "program",
        [
            pytest.param(b"", id="empty"),
            pytest.param(packed(RETURN_7)[:7], id="half an instruction"),
            pytest.param(packed((0x20, 0, 0, 0)), id="no return"),
            pytest.param(packed((0x20, 0, 0, 64), RETURN_7), id="load behind the data"),
            pytest.param(packed((0x20, 0, 0, 2), RETURN_7), id="load off the words"),
            pytest.param(packed((0x28, 0, 0, 0), RETURN_7), id="half word"),
            pytest.param(packed((0x40, 0, 0, 0), RETURN_7), id="indirect load"),
            pytest.param(packed((0x15, 1, 0, 0), RETURN_7), id="jump behind the end"),
            pytest.param(packed((0x05, 0, 0, 1), RETURN_7), id="long jump behind the end"),
            pytest.param(packed((0x02, 0, 0, 16), RETURN_7), id="no such memory"),
            pytest.param(packed((0x64, 0, 0, 32), RETURN_7), id="wide shift"),
            pytest.param(packed((0x0E, 0, 0, 0)), id="return of nothing"),
            pytest.param(packed(RETURN_7) * 4097, id="too long"),
        ],
    )
    def test_what_the_kernel_refuses(self, program: bytes) -> None:
        with pytest.raises(cbpf.InvalidProgram):
            cbpf.load(program)


SECRET, NUMBER = 0xCAFE1234, 1100
KEY = SECRET << 32 | NUMBER
EBADF = SECCOMP_RET_ERRNO | errno.EBADF
TRACED = {arch: cbpf.load(seccomp_filter.build(arch, syscalls.table(arch), KEY)) for arch in ARCHES.values()}


class TestForATracer:
    """With a hidden descriptor: the same verdicts, but stops for notifications, and EBADF for whoever names it."""

    def verdict(self, arch: Arch, number: int, arguments: tuple[int, ...] = NONE) -> int:
        data = cbpf.seccomp_data(number, arch.audit_arch, (*arguments, *NONE)[:6])
        return cbpf.run(TRACED[arch], data)

    @BOTH
    def test_other_descriptors_are_as_ever(self, arch: Arch) -> None:
        for number in range(600):
            for values in (NONE, (U64,) * 6, (1,) * 6, (0x5412,) * 6):
                if syscalls.table(arch).get(number) and syscalls.table(arch)[number].name == "close_range":
                    continue
                plain = verdict(arch, number, values)
                if syscalls.table(arch).get(number) and syscalls.table(arch)[number].name in syscalls.OF_PROCESSORS:
                    plain = NOTIFY
                assert self.verdict(arch, number, values) == {NOTIFY: SECCOMP_RET_TRACE}.get(plain, plain), number

    @BOTH
    def test_what_shows_or_passes_on_processors_is_seen(self, arch: Arch) -> None:
        """The tracer narrows a thread's processors for a moment: none of these is to come in between."""
        seen = {row.name for row in syscalls.table(arch).values() if row.name in syscalls.OF_PROCESSORS}
        assert seen == (syscalls.OF_PROCESSORS if arch is X86_64 else syscalls.OF_PROCESSORS - {"fork", "vfork"})
        for name in seen:
            assert call(arch, name) == ALLOW
            assert self.verdict(arch, syscalls.number(name, arch)) == SECCOMP_RET_TRACE

    @BOTH
    @pytest.mark.parametrize("high", [0, HIGH], ids=["plain", "with a high word"])
    def test_it_is_not_open_in_any_place(self, arch: Arch, high: int) -> None:
        named = 0
        for number, row in syscalls.table(arch).items():
            for index, argument in enumerate(row.arguments):
                if argument.kind == "fd" and row.name != "close_range":
                    arguments = tuple(high | NUMBER if place == index else 0 for place in range(6))
                    assert self.verdict(arch, number, arguments) == EBADF, row.name
                    named += 1
        assert named > 80

    @BOTH
    def test_the_secret_lets_one_call_through(self, arch: Arch) -> None:
        recvmsg, recvfrom = (syscalls.number(name, arch) for name in ("recvmsg", "recvfrom"))
        assert self.verdict(arch, recvmsg, (KEY,)) == ALLOW
        assert self.verdict(arch, recvmsg, (KEY ^ 1 << 32,)) == EBADF
        assert self.verdict(arch, recvfrom, (KEY,)) == EBADF

    @BOTH
    @pytest.mark.parametrize(
        ("first", "last", "stops"),
        [
            (3, NUMBER - 1, False),
            (3, NUMBER, True),
            (3, 0xFFFFFFFF, True),
            (3, HIGH | 5, False),
            (NUMBER, NUMBER, True),
            (HIGH | 3, NUMBER, True),
            (NUMBER + 1, 0xFFFFFFFF, False),
        ],
    )
    def test_closing_all_around_it_stops(self, arch: Arch, first: int, last: int, stops: bool) -> None:
        number = syscalls.number("close_range", arch)
        assert self.verdict(arch, number, (first, last)) == (SECCOMP_RET_TRACE if stops else ALLOW)


HELD = {
    arch: cbpf.load(seccomp_filter.build(arch, syscalls.table_beside(arch, syscalls.HELD_KINDS)))
    for arch in ARCHES.values()
}


def held_call(arch: Arch, name: str, *arguments: int) -> int:
    data = cbpf.seccomp_data(syscalls.number(name, arch), arch.audit_arch, (*arguments, *NONE)[:6])
    return cbpf.run(HELD[arch], data)


class TestWhereTheKernelHoldsReading:
    """An open for reading runs without notice; whatever makes, changes, writes or only names something does not."""

    @BOTH
    def test_reading(self, arch: Arch) -> None:
        for flags in (0, os.O_CLOEXEC, os.O_NONBLOCK | os.O_CLOEXEC, os.O_NOCTTY):
            assert held_call(arch, "openat", 0, 0, flags) == ALLOW
            assert call(arch, "openat", 0, 0, flags) == NOTIFY
        assert held_call(arch, "openat2") == NOTIFY
        assert held_call(X86_64, "open", 0, 0) == ALLOW

    @BOTH
    @pytest.mark.parametrize("bit", [bit for bit in range(32) if 1 << bit & 0xFFF436FF])
    def test_every_other_flag_is_notified(self, arch: Arch, bit: int) -> None:
        assert held_call(arch, "openat", 0, 0, 1 << bit) == NOTIFY
        assert held_call(arch, "openat", 0, 0, 1 << bit | HIGH) == NOTIFY

    def test_the_flags_that_matter_are_among_them(self) -> None:
        for flag in (
            os.O_WRONLY,
            os.O_RDWR,
            os.O_CREAT,
            os.O_EXCL,
            os.O_TRUNC,
            os.O_APPEND,
            O_PATH,
            O_TMPFILE_BIT,
            os.O_NOATIME,
        ):
            assert flag & 0xFFF436FF

    @BOTH
    def test_nothing_changes_where_it_holds_half_of_it(self, arch: Arch) -> None:
        assert syscalls.table_beside(arch, frozenset({Kind.FILE_READ})) is syscalls.table(arch)
