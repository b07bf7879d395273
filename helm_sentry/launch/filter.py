"""The seccomp filter, built from the syscall table. Pure: a table goes in, classic BPF comes out.

Whatever the table does not know is notified, so a new number, another ABI's number and a number with a stray high
bit all reach the supervisor, which refuses and records them.
"""

from collections.abc import Iterator, Mapping

from helm_sentry.abi import flags
from helm_sentry.abi.arch import Arch
from helm_sentry.abi.structs import SOCK_FILTER
from helm_sentry.abi.syscalls import Row, Test, Treatment

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand

# <linux/bpf_common.h>
_LOAD_WORD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND = 0x15, 0x35, 0x45, 0x54

# <linux/seccomp.h> struct seccomp_data; both architectures are little-endian
_NR, _ARCH, _ARGS = 0, 4, 16

_NOTIFY: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_USER_NOTIF)
_ALLOW: Instruction = (_RETURN, 0, 0, flags.SECCOMP_RET_ALLOW)


def build(arch: Arch, table: Mapping[int, Row]) -> bytes:
    """Return the packed program for one architecture.

    Args:
        arch: the agent's own ABI; calls through any other are notified.
        table: syscall numbers of that ABI to their rows.

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
    for body, following in _ranges(table):
        if following is not None:
            program.append((_JUMP_AT_LEAST, len(body), 0, following))
        program += body
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in program)


def _ranges(table: Mapping[int, Row]) -> Iterator[tuple[list[Instruction], int | None]]:
    """Yield, in ascending order, the code for each run of numbers treated alike and where the next run starts."""
    starts: list[tuple[int, list[Instruction]]] = []
    for number in range(max(table) + 2):
        body = _body(table.get(number))
        if not starts or starts[-1][1] != body:
            starts.append((number, body))
    for index, (_, body) in enumerate(starts):
        yield body, starts[index + 1][0] if index + 1 < len(starts) else None


def _body(row: Row | None) -> list[Instruction]:
    """Return the code that ends in a verdict for one row; it may clobber the accumulator."""
    if row is None:
        return [_NOTIFY]
    if row.treatment is Treatment.ALLOW:
        return [_ALLOW]
    if not row.tests:
        return [_NOTIFY]
    return [instruction for test in row.tests for instruction in _test(test)] + [_ALLOW]


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
