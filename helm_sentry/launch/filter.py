"""The seccomp filter, built from the syscall table. Pure: a table goes in, classic BPF comes out.

Whatever the table does not know is notified, so a new number, another ABI's number and a number with a stray high
bit all reach the supervisor, which refuses and records them.
"""

import errno
from collections.abc import Mapping

from helm_sentry.abi import flags
from helm_sentry.abi.arch import Arch
from helm_sentry.abi.structs import SOCK_FILTER
from helm_sentry.abi.syscalls import OF_PROCESSORS, Row, Test, Treatment

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand

# <linux/bpf_common.h>
_LOAD_WORD, _RETURN = 0x20, 0x06
_JUMP, _JUMP_EQUAL, _JUMP_MORE, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND = 0x05, 0x15, 0x25, 0x35, 0x45, 0x54
_FARTHEST = 255  # instructions that a comparison can jump over

# <linux/seccomp.h> struct seccomp_data; both architectures are little-endian
_NR, _ARCH, _ARGS = 0, 4, 16

_NOTIFY: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_USER_NOTIF)
_STOP: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_TRACE)
_ALLOW: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_ALLOW)
_NOT_OPEN: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_ERRNO | errno.EBADF)


def build(arch: Arch, table: Mapping[int, Row], hidden: int | None = None) -> bytes:
    """Return the packed program for one architecture.

    Args:
        arch: the agent's own ABI; calls through any other are notified.
        table: syscall numbers of that ABI to their rows.
        hidden: for a tracer: what would be notified stops the thread instead, and the descriptor with the number in the
            low word is as one that is not open, but for a recvmsg whose register has the high word as well. Calls to do
            with the processors of a thread stop it as well: the tracer narrows those for a moment.

    Returns:
        Packed `struct sock_filter`s, at most BPF_MAXINSNS (4096).
    """
    program = [
        (_LOAD_WORD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, arch.audit_arch),
        _NOTIFY,
        (_LOAD_WORD, 0, 0, _NR),
    ]
    if arch.foreign_bit:
        program += [(_JUMP_ANY_BIT, 0, 1, arch.foreign_bit), _NOTIFY]
    program += _halves(_ranges(table, hidden))
    if hidden is not None:
        program = [_STOP if instruction == _NOTIFY else instruction for instruction in program]
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in program)


def _ranges(table: Mapping[int, Row], hidden: int | None) -> list[tuple[int, list[Instruction]]]:
    """Return, in ascending order, where each run of numbers that are treated alike starts, and the code for it."""
    ranges: list[tuple[int, list[Instruction]]] = []
    for number in range(max(table) + 2):
        row = table.get(number)
        body = _hiding(row, hidden) + _body(row)
        if hidden is not None and row and row.name in OF_PROCESSORS:
            body = [_STOP if instruction == _ALLOW else instruction for instruction in body]
        if not ranges or ranges[-1][1] != body:
            ranges.append((number, body))
    return ranges


def _halves(ranges: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Return code that finds the run of a number and carries out the code for it: eight comparisons, not a hundred."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _halves(ranges[:middle]), _halves(ranges[middle:])
    start = ranges[middle][0]
    if len(low) <= _FARTHEST:
        return [(_JUMP_AT_LEAST, len(low), 0, start), *low, *high]
    return [(_JUMP_AT_LEAST, 0, 1, start), (_JUMP, 0, 0, len(low)), *low, *high]


def _body(row: Row | None) -> list[Instruction]:
    """Return the code that ends in a verdict for one row; it may clobber the accumulator."""
    if row is None:
        return [_NOTIFY]
    if row.treatment is Treatment.ALLOW:
        return [_ALLOW]
    if not row.tests:
        return [_NOTIFY]
    return [instruction for test in row.tests for instruction in _test(test)] + [_ALLOW]


def _hiding(row: Row | None, hidden: int | None) -> list[Instruction]:
    """Return code that refuses a row's call when it names the hidden descriptor; to close all around it is notified."""
    if row is None or hidden is None:
        return []
    arguments = [(_LOAD_WORD, 0, 0, _ARGS + 8 * index) for index in range(len(row.arguments))]
    secret, hidden = hidden >> 32, hidden & 0xFFFFFFFF
    if row.name == "recvmsg":
        high = (_LOAD_WORD, 0, 0, _ARGS + 4)
        return [arguments[0], (_JUMP_EQUAL, 0, 3, hidden), high, (_JUMP_EQUAL, 1, 0, secret), _NOT_OPEN]
    if row.name == "close_range":
        return [
            *(arguments[0], (_JUMP_MORE, 3, 0, hidden)),
            *(arguments[1], (_JUMP_AT_LEAST, 0, 1, hidden), _NOTIFY),
        ]
    places = [load for load, argument in zip(arguments, row.arguments, strict=True) if argument.kind == "fd"]
    return [instruction for load in places for instruction in (load, (_JUMP_EQUAL, 0, 1, hidden), _NOT_OPEN)]


def _test(test: Test) -> list[Instruction]:
    """Return code that notifies when the test holds and falls through when it does not.

    The kernel ignores the high word of a 32-bit argument, so a test on one must too; a test on a 64-bit argument
    must see both words, or a stray high bit would get past it.
    """
    low = (_LOAD_WORD, 0, 0, _ARGS + 8 * test.argument)
    high = (_LOAD_WORD, 0, 0, _ARGS + 8 * test.argument + 4)
    low_value, high_value = test.value & 0xFFFFFFFF, test.value >> 32
    if not test.wide:
        return [low, *_compare(test.operator, low_value)]
    if test.operator == "=":
        return [low, (_JUMP_EQUAL, 0, 3, low_value), high, (_JUMP_EQUAL, 0, 1, high_value), _NOTIFY]
    return [low, *_compare(test.operator, low_value), high, *_compare(test.operator, high_value)]


def _compare(operator: str, value: int) -> list[Instruction]:
    match operator:
        case "=":
            return [(_JUMP_EQUAL, 0, 1, value), _NOTIFY]
        case "!=":
            return [(_JUMP_EQUAL, 1, 0, value), _NOTIFY]
        case "&":
            return [(_JUMP_ANY_BIT, 0, 1, value), _NOTIFY]
        case "~":
            return [(_AND, 0, 0, value), (_JUMP_EQUAL, 2, 0, 0), (_JUMP_EQUAL, 1, 0, value), _NOTIFY]
        case _:
            raise ValueError(f"no filter code for the test operator `{operator}`")
