"""The agent's memory, read once and written back, through process_vm_readv(2), /proc/PID/mem and process_vm_writev(2).

A read names a thread id; only `Listener.alive` afterwards says that the id still meant the caller. A bad pointer is
EFAULT here as it is natively, but for a path on a page that is mapped and may not be read: /proc/PID/mem reads it.
"""

import errno
import os
import threading
import time

from helm_sentry.abi import libc
from helm_sentry.abi.flags import PATH_MAX, UIO_MAXIOV
from helm_sentry.abi.structs import IOVEC

_PAGE = 4096
_FIRST_LOOK = 256
_HIGHEST = (1 << 63) - 1 - _FIRST_LOOK
_KEEP_FILES, _MOST_FILES = 0.25, 64  # seconds, descriptors
_ADDRESS_MASK = (1 << 64) - 1


class Unreadable(Exception):
    """The agent hides its memory from the supervisor, so its arguments cannot be known."""


class Gone(Exception):
    """The caller died while its syscall was handled; there is nobody to answer."""


class Memory(threading.local):
    """Buffers for reading agents' memory, one set for each broker thread."""

    _all_execs = 0  # counted for all threads, unlike what __init__ sets

    def __init__(self) -> None:
        self._files: dict[int, int] = {}
        self._expiry, self._execs = 0.0, 0
        self._buffer = bytearray(PATH_MAX + _PAGE)
        self._local = IOVEC.pack(libc.address_of(self._buffer), len(self._buffer))

    def read(self, tid: int, address: int, size: int) -> bytes:
        """Return exactly `size` bytes, at most 8 KiB.

        Raises:
            OSError: EFAULT when part of the range is not readable.
            Unreadable: the agent's memory is hidden.
            Gone: the thread does not exist.
        """
        if self._fetch(tid, address, size) < size:
            raise OSError(errno.EFAULT, "short read")
        return bytes(self._buffer[:size])

    def read_string(self, tid: int, address: int, limit: int = PATH_MAX) -> bytes:
        """Return a NUL-terminated string without its NUL.

        Args:
            tid: thread to read from.
            address: where it starts.
            limit: most bytes to look at, the NUL included.

        Raises:
            OSError: EFAULT as the kernel gives it; ENAMETOOLONG when there is no NUL within `limit`.
            Unreadable: the agent's memory is hidden.
            Gone: the thread does not exist.
        """
        # One look within the page serves nearly every path; a NUL must not hide behind an unmapped next page.
        size = min(_FIRST_LOOK, limit, _PAGE - address % _PAGE)
        look = self._look(tid, address, size)
        end = look.find(0)
        if end > 0:
            return look[:end]
        # Rare, and where page protections must count: /proc/PID/mem disregards them.
        text = b""
        while len(text) < limit:
            place = address + len(text)
            got = self._fetch(tid, place, min(limit - len(text), _PAGE - place % _PAGE))
            end = self._buffer.find(0, 0, got)
            if end >= 0:
                return text + bytes(self._buffer[:end])
            text += bytes(self._buffer[:got])
        raise OSError(errno.ENAMETOOLONG, "no end within the limit")

    def _look(self, tid: int, address: int, size: int) -> bytes:
        """Read through /proc/PID/mem, at half the price of process_vm_readv; empty where that is no use."""
        now = time.monotonic()
        if now > self._expiry or self._execs != Memory._all_execs or len(self._files) >= _MOST_FILES:
            self._forget(now)
        try:
            file = self._files.get(tid)
            if file is None:
                file = self._files[tid] = os.open(b"/proc/%d/mem" % tid, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(file, size, address) if address <= _HIGHEST else b""
        except PermissionError:
            raise Unreadable from None
        except OSError:
            return b""

    def _forget(self, now: float) -> None:
        """Close the descriptors: a process that has executed, or another one under an old id, has other memory.

        They are kept for less time than it takes to fork through all the process ids there are.
        """
        self._expiry, self._execs = now + _KEEP_FILES, Memory._all_execs
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    @classmethod
    def executed(cls) -> None:
        """Say that some process has a new memory; to be called before it runs its first instruction."""
        cls._all_execs += 1

    def read_large(self, tid: int, address: int, size: int) -> bytearray:
        """Return up to `size` bytes of any length: less when the range ends early, EFAULT when it starts bad."""
        data = bytearray(size)
        if not size:
            return data
        got = _transfer(libc.process_vm_readv, tid, IOVEC.pack(libc.address_of(data), size), *_segments(address, size))
        return data if got == size else data[:got]

    def read_vector(self, tid: int, address: int, count: int) -> list[tuple[int, int]]:
        """Return the (base, length) pairs of an iovec array.

        Raises:
            OSError: EMSGSIZE when there are more than UIO_MAXIOV, EFAULT when they cannot be read.
        """
        if count > UIO_MAXIOV:
            raise OSError(errno.EMSGSIZE, "too many buffers")
        raw = bytes(self.read_large(tid, address, count * IOVEC.size))
        if len(raw) < count * IOVEC.size:
            raise OSError(errno.EFAULT, "short read")
        return list(IOVEC.iter_unpack(raw))

    def write(self, tid: int, address: int, data: bytes | bytearray) -> None:
        """Copy a result into the agent's memory.

        Raises:
            OSError: EFAULT when part of the range is not writable.
        """
        source = data if isinstance(data, bytearray) else bytearray(data)
        if not source:
            return
        remote = IOVEC.pack(address & _ADDRESS_MASK, len(source))
        local = IOVEC.pack(libc.address_of(source), len(source))
        if _transfer(libc.process_vm_writev, tid, local, remote) < len(source):
            raise OSError(errno.EFAULT, "short write")

    def _fetch(self, tid: int, address: int, size: int) -> int:
        remote = IOVEC.pack(address & _ADDRESS_MASK, size)
        return _transfer(libc.process_vm_readv, tid, self._local, remote, 1)


def _segments(address: int, size: int) -> tuple[bytes, int]:
    """Split a range so that a partial transfer stops at a page, not before it; see process_vm_readv(2)."""
    step = max(_PAGE, -(-size // (UIO_MAXIOV - 2) // _PAGE) * _PAGE)
    packed, place, end = [], address, address + size
    while place < end:
        stop = min(end, (place // step + 1) * step)
        packed.append(IOVEC.pack(place & _ADDRESS_MASK, stop - place))
        place = stop
    return b"".join(packed), len(packed)


def _transfer(call: "libc.Transfer", tid: int, *arguments: object) -> int:
    try:
        return call(tid, *arguments)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise Gone from None
        if error.errno == errno.EPERM:
            raise Unreadable from None
        raise
