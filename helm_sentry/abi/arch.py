"""The two machine architectures, each as one filled-in record.

A port to another architecture is a third record and a column in `syscalls.csv`.
"""

import os
from dataclasses import dataclass

from helm_sentry.errors import FeatureError


@dataclass(frozen=True, slots=True)
class Arch:
    """What differs between architectures.

    Attributes:
        name: column name in `syscalls.csv`.
        audit_arch: AUDIT_ARCH_* value the kernel puts in `seccomp_data.arch` (<linux/audit.h>).
        foreign_bit: bit in a syscall number that selects another ABI under the same `audit_arch`
            (x32's bit 30), 0 where there is none.
        argument_offsets: where the kernel's `struct pt_regs` keeps the arguments of a syscall, in bytes.
        first_argument_after: where it keeps the first of them when the call returns.
        loaders: where the dynamic loaders named in PT_INTERP live.
    """

    name: str
    audit_arch: int
    foreign_bit: int
    argument_offsets: tuple[int, ...]
    first_argument_after: int
    loaders: tuple[str, ...]


X86_64 = Arch(
    name="x86_64",
    audit_arch=0xC000003E,
    foreign_bit=0x40000000,
    argument_offsets=(112, 104, 96, 56, 72, 64),  # di, si, dx, r10, r8, r9
    first_argument_after=112,
    loaders=("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
)
AARCH64 = Arch(
    name="aarch64",
    audit_arch=0xC00000B7,
    foreign_bit=0,
    argument_offsets=(0, 8, 16, 24, 32, 40),
    first_argument_after=272,  # orig_x0
    loaders=("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"),
)
ARCHES = {arch.name: arch for arch in (X86_64, AARCH64)}


def native() -> Arch:
    """Return the record of the machine this runs on.

    Raises:
        FeatureError: the machine is neither x86_64 nor aarch64.
    """
    machine = os.uname().machine
    if machine not in ARCHES:
        raise FeatureError(f"this machine is `{machine}`; helm sentry knows x86_64 and aarch64")
    return ARCHES[machine]
