"""What the attack programs share: where the decoys are, system calls by name, and how an attempt ends.

A program takes the facts of its arena as JSON in its first argument and exits with 0 when its attack got through, 1
when it was stopped, and 2 when it is not possible on this kernel or for this user.
"""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

FACTS: dict[str, Any] = json.loads(sys.argv[1])
WORK: str = FACTS["workspace"]
OUTSIDE: str = FACTS["outside"]
SECRET = f"{OUTSIDE}/secret"
SECONDS: float = FACTS["seconds"]
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class NotPossible(Exception):
    """This kernel, machine or user lacks what the attack is made of."""


def call(name: str, *arguments: Any) -> int:
    """Make a system call by its name; see `raw`."""
    if name not in FACTS["numbers"]:
        raise NotPossible(f"this machine has no {name}")
    return raw(FACTS["numbers"][name], *arguments)


def raw(number: int, *arguments: Any) -> int:
    """Make a system call; texts and bytes are passed by address. Raises OSError."""
    result: int = LIBC.syscall(ctypes.c_long(number), *[_register(value) for value in arguments])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _register(value: Any) -> Any:
    if isinstance(value, str):
        return ctypes.c_char_p(os.fsencode(value))
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    return ctypes.c_ulong(value & (1 << 64) - 1) if isinstance(value, int) else value


def read(path: str | bytes | int) -> bool:
    """Read a file; whether what it holds is a decoy secret."""
    with open(path, "rb") as file:
        return b"decoy" in file.read(4096)


def read_at(path: str, directory: int | None = None) -> bool:
    """The same relative to a directory's descriptor."""
    return read(os.open(path, os.O_RDONLY, dir_fd=directory))


def reached(action: Callable[[], Any], *codes: int) -> bool:
    """Whether a call got as far as the kernel's own checks: it succeeds, or fails with one of these errors."""
    try:
        action()
    except OSError as error:
        if error.errno not in codes:
            raise
    return True


def main(attempt: Callable[[], bool], needs: str = "") -> NoReturn:
    """Make the attempt and exit with what came of it.

    Args:
        attempt: whether the attack got through; an OSError means that it was stopped.
        needs: what not every user or kernel has. Without the supervisor a refusal then means `not possible`.
    """
    status = 1
    try:
        status = 0 if attempt() else 1
    except NotPossible as reason:
        print(reason)
        status = 2
    except OSError as error:
        print(error)
        if not FACTS["supervised"] and (needs or error.errno == errno.ENOSYS):
            print(f"needs {needs or 'a kernel that has it'}")
            status = 2
    sys.stdout.flush()
    os._exit(status)
