"""The syscall table: every number, argument and treatment, read from `syscalls.csv`.

Nothing else in the code base lists syscall numbers, argument types or "the file syscalls". The file has one
row a syscall, no quoting and no comma inside a field, in these columns:

    name             as the kernel names it
    class            the family it belongs to, one of `GROUPS`
    operation        the `Kind` it is judged as when only one fits, or when it is refused undecoded
    args             `name:kind` words in register order; names are the kernel's, kinds are in `KIND_BITS`.
                     aarch64 swaps the last two of `clone`, which nothing reads
    x86_64, aarch64  numbers, blank where the architecture has no such call
    treatment        see `Treatment`
    when             tests over arguments; the call is notified when any of them holds, always when blank
    errno            what a refusal answers; blank on a deny row is EPERM
    continue_reason  why the broker may let the kernel carry a mediated call out; blank: it may not
    reason           why the call is treated so, never blank; `docs/syscalls.md` shows it (`reference.py`)

A test is an argument name, an operator and a number: `=` and `!=` compare, `&` holds when any of the bits is
set, `~` (up to 32 bits) when some but not all are: `personality` with none is harmless, with all only asks.
`held:` before a test: the call is always notified, but where the kernel itself holds what it asks for (`HELD_KINDS`);
there it is notified when the test holds. The flags an open may have and run without notice there are O_CLOEXEC,
O_NOCTTY, O_NONBLOCK, O_DIRECT, O_LARGEFILE, O_DIRECTORY and O_NOFOLLOW, the last four by their values on either
architecture: none of them creates, changes or writes anything.
"""

import errno
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from helm_sentry.abi.arch import Arch
from helm_sentry.operation import Kind

GROUPS = ("file", "exec", "network", "process", "signal", "memory", "ipc", "time", "kernel", "other")

# How many low bits of the register the kernel reads. Whoever compares more than these is fooled by a caller
# who fills the rest: 0x1_0000_5412 is TIOCSTI as well. The last two lines are pointers: `path` is a name that
# the kernel resolves, `string` is text that it does not, `buf` is bytes.
KIND_BITS: Mapping[str, int] = {"mode": 16} | {
    kind: bits
    for bits, kinds in (
        (32, "fd dirfd int uint open_flags at_flags uid gid pid signal"),
        (64, "long ulong size"),
        (64, "path string buf argv envp sockaddr iovec msghdr mmsghdr ptr stat_buf statx_buf statfs_buf"),
        (64, "timespec timeval utimbuf siginfo sigset open_how clone_args xattr_args"),
    )
    for kind in kinds.split()
}

_FILE = os.path.join(os.path.dirname(__file__), "syscalls.csv")
_COLUMNS = "name,class,operation,args,x86_64,aarch64,treatment,when,errno,continue_reason,reason"
_OPERATORS = ("!=", "=", "&", "~")  # `!=` before its suffix
_HELD = "held:"

HELD_KINDS = frozenset({Kind.FILE_READ, Kind.FILE_LIST})
"""What a call with `held:` tests asks for when none of them holds. Both: nothing in a register tells a file from a
directory."""

OF_PROCESSORS = frozenset({"clone", "fork", "vfork", "sched_getaffinity", "sched_setaffinity"})
"""Calls that pass on, show or set the processors a thread may run on."""


class Treatment(StrEnum):
    """What happens when an agent makes the call."""

    ALLOW = "allow"  # runs without notice
    MEDIATE = "mediate"  # notified; a broker handler decides and carries it out
    DENY = "deny"  # notified, recorded and refused unless a policy names its kind


@dataclass(frozen=True, slots=True)
class Argument:
    """One register of a syscall: the kernel's name for it and its kind, a key of `KIND_BITS`."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Test:
    """One condition under which a call is notified.

    Attributes:
        argument: index of the argument, 0 to 5.
        wide: all 64 bits of the register count; otherwise the kernel ignores the high word, so must the test.
        operator: `=`, `!=`, `&` or `~`, as the module's description says.
        value: unsigned.
    """

    argument: int
    wide: bool
    operator: str
    value: int

    def holds(self, arguments: Sequence[int]) -> bool:
        """Whether it holds for these registers."""
        found = arguments[self.argument] & (2**64 - 1 if self.wide else 0xFFFF_FFFF)
        match self.operator:
            case "=":
                return found == self.value
            case "!=":
                return found != self.value
            case "&":
                return found & self.value != 0
            case _:
                return found & self.value not in (0, self.value)


@dataclass(frozen=True, slots=True)
class Row:
    """One syscall; the module's description explains the columns.

    Attributes:
        group: the `class` column.
        operation: None exactly when `treatment` is ALLOW.
        tests: empty means always notified, unless `treatment` is ALLOW.
        errno: 0 where the handler picks it.
        numbers: by architecture name; an architecture without the call is absent.
        held: the tests in their place where the kernel holds `HELD_KINDS`; empty when that makes no difference.
        reason: why it is treated so; blank for a call that is in no table.
    """

    name: str
    group: str
    operation: Kind | None
    arguments: tuple[Argument, ...]
    treatment: Treatment
    tests: tuple[Test, ...]
    errno: int
    continue_reason: str
    numbers: Mapping[str, int]
    held: tuple[Test, ...] = ()
    reason: str = ""

    def notified(self, arguments: Sequence[int]) -> bool:
        """Whether a call with these registers is the broker's."""
        if self.treatment is Treatment.ALLOW:
            return False
        return not self.tests or any(test.holds(arguments) for test in self.tests)


@cache
def rows() -> tuple[Row, ...]:
    """Return every row of the shipped table, parsed on first use."""
    with open(_FILE, "rb") as stream:
        return parse(stream.read().decode("ascii"))


@cache
def table(arch: Arch) -> Mapping[int, Row]:
    """Return the rows of one architecture by syscall number."""
    return MappingProxyType({row.numbers[arch.name]: row for row in rows() if arch.name in row.numbers})


def mediated_numbers(arch: Arch) -> tuple[int, ...]:
    """Return the numbers of the syscalls that are mediated whatever their arguments."""
    return tuple(number for number, row in table(arch).items() if row.treatment is Treatment.MEDIATE and not row.tests)


def table_beside(arch: Arch, kernel: Set[Kind]) -> Mapping[int, Row]:
    """Return the rows of one architecture as they are where the kernel holds some kinds of operation by itself."""
    if not kernel >= HELD_KINDS:
        return table(arch)
    held = {at: replace(row, tests=row.held) for at, row in table(arch).items() if row.held}
    return MappingProxyType({**table(arch), **held})


def number(name: str, arch: Arch) -> int:
    """Return the number of a syscall.

    Raises:
        LookupError: the architecture has no such call.
    """
    if name not in numbers(arch):
        raise LookupError(f"`{name}` is not a syscall of {arch.name}")
    return numbers(arch)[name]


def parse(text: str) -> tuple[Row, ...]:
    """Return the rows of a table in the format of this module's description.

    Raises:
        ValueError: the text is not such a table; names the line.
    """
    lines = text.splitlines()
    if not lines or lines[0] != _COLUMNS:
        raise ValueError(f"syscalls.csv:1: the columns must be `{_COLUMNS}`")
    parsed = []
    for position, line in enumerate(lines[1:], start=2):
        try:
            parsed.append(_row(line))
        except ValueError as error:
            raise ValueError(f"syscalls.csv:{position}: {error}") from error
    return tuple(parsed)


@cache
def numbers(arch: Arch) -> Mapping[str, int]:
    """Return the syscall numbers of one architecture by name."""
    return {row.name: key for key, row in table(arch).items()}


def _row(line: str) -> Row:
    fields = line.split(",")
    if len(fields) != 11:
        raise ValueError(f"{len(fields)} fields where 11 are needed")
    name, group, operation, args, x86_64, aarch64, treatment_name, when, errno_name, continue_reason, reason = fields
    if not name or group not in GROUPS:
        raise ValueError(f"`{group}` is not a class of syscalls")
    arguments = tuple([_argument(word) for word in args.split()])
    treatment = _treatment(treatment_name)
    if (treatment is Treatment.ALLOW) == bool(operation) or (when and not operation):
        raise ValueError("mediate and deny rows name an operation; allow rows have neither that nor tests")
    if not reason:
        raise ValueError("every row says why the call is treated so")
    if continue_reason and treatment is not Treatment.MEDIATE:
        raise ValueError("only a mediate row has a reason to continue")
    words = when.split() if when else []
    tests = tuple([_test(word, arguments) for word in words if not word.startswith(_HELD)])
    held = tuple([_test(word.removeprefix(_HELD), arguments) for word in words if word.startswith(_HELD)])
    if held and (tests or treatment is not Treatment.MEDIATE):
        raise ValueError("only a mediate row without other tests has tests for where the kernel holds it")
    answer = _errno(errno_name or "EPERM") if errno_name or treatment is Treatment.DENY else 0
    numbers = {arch: int(text) for arch, text in (("x86_64", x86_64), ("aarch64", aarch64)) if text}
    kind = _kind(operation) if operation else None
    return Row(name, group, kind, arguments, treatment, tests, answer, continue_reason, numbers, held, reason)


_treatment, _kind = cache(Treatment), cache(Kind)  # looking a value up in an enumeration is slow


def _errno(name: str) -> int:
    value = vars(errno).get(name)
    if not isinstance(value, int):
        raise ValueError(f"`{name}` is not an errno")
    return value


@cache
def _argument(word: str) -> Argument:
    name, _, kind = word.partition(":")
    if not name or kind not in KIND_BITS:
        raise ValueError(f"`{word}` is not an argument name and a known kind")
    return Argument(name, kind)


def _test(word: str, arguments: tuple[Argument, ...]) -> Test:
    operator = next((operator for operator in _OPERATORS if operator in word), "")
    name, _, numeral = word.partition(operator or "=")
    index = next((index for index, argument in enumerate(arguments) if argument.name == name), None)
    if not operator or index is None:
        raise ValueError(f"`{word}` is not an argument of this call, an operator and a number")
    bits, value = KIND_BITS[arguments[index].kind], int(numeral, 0)
    if value not in range(1 << bits):
        raise ValueError(f"`{word}` compares with a number outside the {bits} bits that the kernel reads")
    return Test(index, bits > 32, operator, value)
