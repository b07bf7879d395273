"""The reading end of a ring buffer, on a file that is laid out like one."""

import mmap
import struct
from collections.abc import Iterator

import pytest

from helm_sentry.sensor.ring import RingBuffer

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's side."""

    def __init__(self, file) -> None:
        self.memory = mmap.mmap(file.fileno(), 2 * PAGE + 2 * SIZE)
        self.position = 0

    def write(self, data: bytes, mark: int = 0) -> int:
        place = 2 * PAGE + self.position % SIZE
        record = struct.pack("<II", len(data) | mark, 0) + data
        self.memory[place : place + len(record)] = record
        self.position += (len(record) + 7) & ~7
        self.memory[PAGE : PAGE + 8] = struct.pack("<Q", self.position)
        return place

    @property
    def consumed(self) -> int:
        return struct.unpack_from("<Q", self.memory)[0]


@pytest.fixture
def ring(tmp_path) -> Iterator[tuple[Writer, RingBuffer]]:
    with open(tmp_path / "ring", "w+b") as file:
        file.truncate(2 * PAGE + 2 * SIZE)
        reader = RingBuffer(file.fileno(), SIZE)
        yield Writer(file), reader
        reader.close()


def test_records_come_in_order_and_once(ring) -> None:
    writer, reader = ring
    writer.write(b"first...")
    writer.write(b"second")
    assert list(reader.records()) == [b"first...", b"second"]
    assert list(reader.records()) == []
    assert writer.consumed == writer.position


def test_a_discarded_record_is_passed_over(ring) -> None:
    writer, reader = ring
    writer.write(b"never", DISCARDED)
    writer.write(b"this")
    assert list(reader.records()) == [b"this"]


def test_a_record_that_is_being_written_holds_up_what_follows(ring) -> None:
    writer, reader = ring
    place = writer.write(b"later", BUSY)
    writer.write(b"after")
    assert list(reader.records()) == []
    assert writer.consumed == 0
    writer.memory[place : place + 4] = struct.pack("<I", 5)
    assert list(reader.records()) == [b"later", b"after"]


def test_it_goes_round(ring) -> None:
    writer, reader = ring
    for number in range(3 * SIZE // 16):
        writer.write(struct.pack("<Q", number))
        assert list(reader.records()) == [struct.pack("<Q", number)]
