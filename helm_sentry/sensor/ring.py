"""A BPF ring buffer, read without being woken for each record. See Documentation/bpf/ringbuf.rst.

    page 0      how far the reader is, written here
    page 1      how far the writers are
    page 2...   the data, mapped twice in a row, so that no record is ever cut in two

A record is a length with two flags, the number of its page, and the bytes, in multiples of eight.
"""

import mmap
import os
from collections.abc import Iterator

_HEADER = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30  # <linux/bpf.h> BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
_PAGE = mmap.PAGESIZE


class RingBuffer:
    """The reading end of a ring buffer map.

    Args:
        descriptor: the map, which stays the caller's.
        size: its size in bytes, a power of two.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._mask = size - 1
        self._reader = mmap.mmap(descriptor, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._writers = mmap.mmap(descriptor, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        # One aligned load or store of a processor word each, as the kernel does on its side.
        self._read = memoryview(self._reader)[:8].cast("Q")
        self._written = memoryview(self._writers)[:8].cast("Q")
        self._data = memoryview(self._writers)[_PAGE:]
        self._words = self._data.cast("I")

    def records(self) -> Iterator[bytes]:
        """Yield what was written since the last look; the room is given back as it is consumed."""
        position = self._read[0]
        while position < self._written[0]:
            place = position & self._mask
            length = self._words[place // 4]
            if length & _BUSY:
                return  # still being written, and what follows waits for it
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                yield bytes(self._data[place + _HEADER : place + _HEADER + size])
            position += (size + _HEADER + 7) & ~7
            self._read[0] = position

    def close(self) -> None:
        """Unmap it."""
        for view in (self._read, self._written, self._words, self._data):
            view.release()
        self._reader.close()
        self._writers.close()


def possible_processors() -> int:
    """Return how many values a per-processor map has for each key."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        last = file.read().strip().rpartition(",")[2].rpartition("-")[2]
    return int(last) + 1 if last else os.cpu_count() or 1
