"""Classic BPF as seccomp runs it: the checks of the kernel's loader, and an interpreter.

Written from <linux/filter.h>, <linux/bpf_common.h>, seccomp(2) and the rules in kernel/seccomp.c
(`seccomp_check_filter`) and net/core/filter.c (`bpf_check_classic`), independently of what builds the filter.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MAX_INSTRUCTIONS = 4096
DATA_SIZE = 64  # sizeof(struct seccomp_data)
WORD = 0xFFFFFFFF
_SCRATCH = 16  # BPF_MEMWORDS

LOAD, LOAD_X, STORE, STORE_X, ARITHMETIC, JUMP, RETURN, MOVE = range(8)
_BY_X = 0x08
_ABSOLUTE, _IMMEDIATE, _MEMORY, _LENGTH = 0x20, 0x00, 0x60, 0x80
_OPERATIONS = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << b,
    0x70: lambda a, b: a >> b,
    0x80: lambda a, b: -a,
    0xA0: lambda a, b: a ^ b,
}
_ALWAYS = 0x00
_CONDITIONS = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: a & b != 0,
}


class InvalidProgram(ValueError):
    """The kernel would refuse the program with EINVAL."""


@dataclass(frozen=True)
class Instruction:
    """One `struct sock_filter`."""

    code: int
    when_true: int
    when_false: int
    operand: int

    @property
    def kind(self) -> int:
        return self.code & 0x07

    @property
    def mode(self) -> int:
        """Addressing mode of a load, operation of arithmetic and jumps."""
        return self.code & 0xF0 if self.kind in (ARITHMETIC, JUMP) else self.code & 0xE0


def seccomp_data(number: int, audit_arch: int, arguments: Sequence[int], pointer: int = 0) -> bytes:
    """Return the `struct seccomp_data` of a syscall; a negative number as the kernel stores it."""
    return struct.pack("<iIQ6Q", number, audit_arch, pointer, *arguments)


def load(program: bytes) -> list[Instruction]:
    """Return the instructions of a packed program.

    Raises:
        InvalidProgram: the kernel would not load it.
    """
    if not program or len(program) % 8 or len(program) // 8 > MAX_INSTRUCTIONS:
        raise InvalidProgram("length")
    instructions = [Instruction(*fields) for fields in struct.iter_unpack("<HBBI", program)]
    for place, each in enumerate(instructions):
        _check(each, len(instructions) - place - 1)
    if instructions[-1].kind != RETURN:
        raise InvalidProgram("the end does not return")
    return instructions


def _check(each: Instruction, following: int) -> None:
    if each.kind in (LOAD, LOAD_X):
        _check_load(each)
    elif each.kind in (STORE, STORE_X):
        if each.operand >= _SCRATCH:
            raise InvalidProgram("scratch memory")
    elif each.kind == ARITHMETIC:
        if each.mode not in _OPERATIONS or (each.mode in (0x60, 0x70) and not each.code & _BY_X and each.operand > 31):
            raise InvalidProgram("arithmetic")
    elif each.kind == JUMP:
        targets = (each.operand,) if each.mode == _ALWAYS else (each.when_true, each.when_false)
        if (each.mode != _ALWAYS and each.mode not in _CONDITIONS) or max(targets) >= following:
            raise InvalidProgram("jump")
    elif each.kind == RETURN and each.code not in (0x06, 0x16):
        raise InvalidProgram("return")


def _check_load(each: Instruction) -> None:
    absolute = each.kind == LOAD and each.mode == _ABSOLUTE
    if absolute and (each.operand >= DATA_SIZE or each.operand % 4):
        raise InvalidProgram("load outside of the data")
    if each.code & 0x18 or not (absolute or each.mode in (_IMMEDIATE, _MEMORY, _LENGTH)):
        raise InvalidProgram("load")
    if each.mode == _MEMORY and each.operand >= _SCRATCH:
        raise InvalidProgram("scratch memory")


def run(instructions: Sequence[Instruction], data: bytes) -> int:
    """Return the verdict of a loaded program on one syscall."""
    accumulator, index, scratch, place = 0, 0, [0] * _SCRATCH, 0
    while True:  # jumps go forward only, and the last instruction returns
        each = instructions[place]
        place += 1
        by = index if each.code & _BY_X else each.operand
        if each.kind in (LOAD, LOAD_X):
            loaded = _loaded(each, data, scratch)
            accumulator, index = (loaded, index) if each.kind == LOAD else (accumulator, loaded)
        elif each.kind in (STORE, STORE_X):
            scratch[each.operand] = accumulator if each.kind == STORE else index
        elif each.kind == ARITHMETIC:
            accumulator = _OPERATIONS[each.mode](accumulator, by) & WORD
        elif each.kind == JUMP:
            if each.mode == _ALWAYS:
                place += each.operand
            else:
                place += each.when_true if _CONDITIONS[each.mode](accumulator, by) else each.when_false
        elif each.kind == MOVE:
            accumulator, index = (index, index) if each.code & 0x80 else (accumulator, accumulator)
        else:
            return accumulator if each.code & 0x10 else each.operand


def _loaded(each: Instruction, data: bytes, scratch: list[int]) -> int:
    if each.mode == _ABSOLUTE:
        return int(struct.unpack_from("<I", data, each.operand)[0])
    if each.mode == _LENGTH:
        return DATA_SIZE
    return scratch[each.operand] if each.mode == _MEMORY else each.operand
