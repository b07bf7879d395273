"""What the kernel reports of opens that the supervisor did not see, as `bpf/include/witness.h` lays it out. Pure."""

import os
import stat
import struct
from dataclasses import dataclass
from functools import lru_cache

from helm_sentry.operation import Kind

HEAD = struct.Struct("=IiIIIIQQiI")
"""struct opened without its text: tid, result, syscall, flags, mode, device, inode, magic, directory, size."""

UNSURE, DEEP, UNNAMED, LOST = 1, 2, 4, 8
"""enum opened_flags."""

_TMPFS = 0x01021994  # <linux/magic.h>; without a name: memory made with memfd_create(2)
_LATE_ERRNO = -512  # from here on the kernel makes the call again, and nobody sees this result


@dataclass(frozen=True, slots=True)
class Opened:
    """One open that the kernel's own rules judged.

    Attributes:
        tid: thread that opened.
        result: its descriptor, or a negative errno.
        syscall: number of the call.
        kind: what the open came to; None when the file is unknown.
        path: of what was opened, as its directory entries say; of a failed open, what was passed.
        object: device and inode in hex, as in other records.
        directory: of a failed open by a relative path, the descriptor it is relative to.
        own: something without a name, such as a pipe, that only the run's own descriptors lead to.
        known: the file is the one that was opened, and has its whole path.
        sure: no other thread can have put another file in its place before it was looked at.
    """

    tid: int
    result: int
    syscall: int
    kind: Kind | None
    path: str
    object: str
    directory: int
    own: bool
    known: bool
    sure: bool

    @property
    def repeated(self) -> bool:
        """Whether the call was interrupted and is made again."""
        return self.result <= _LATE_ERRNO


def opened(data: bytes) -> Opened:
    """Return the open in a ring buffer's record."""
    tid, result = struct.unpack_from("=Ii", data)
    syscall, kind, path, found, directory, own, known, sure = _facts(data[8:], result < 0)
    return Opened(tid, result, syscall, kind, path, found, directory, own, known, sure)


@lru_cache(maxsize=8192)
def _facts(data: bytes, failed: bool) -> tuple[int, Kind | None, str, str, int, bool, bool, bool]:
    """Return everything in a record that does not depend on the thread and its descriptor."""
    _, _, syscall, marks, mode, device, inode, magic, directory, size = HEAD.unpack_from(bytes(8) + data)
    text = data[HEAD.size - 8 : HEAD.size - 8 + size]
    if failed:
        return syscall, None, os.fsdecode(text), "", directory, False, False, True
    number = os.makedev(device >> 20, device & 0xFFFFF)
    kind = Kind.FILE_LIST if stat.S_ISDIR(mode) else Kind.FILE_READ
    own = bool(marks & UNNAMED) and (stat.S_ISFIFO(mode) or (stat.S_ISREG(mode) and magic == _TMPFS))
    path = _unnamed(text, mode, inode) if marks & UNNAMED else _path(text)
    known = not marks & (DEEP | LOST)
    return syscall, kind, path, f"{number:x}:{inode:x}", directory, own, known, not marks & UNSURE


def _path(text: bytes) -> str:
    names = text.split(b"/")[:-1]  # each name has a slash behind it
    return "/" + os.fsdecode(b"/".join(reversed(names)))


def _unnamed(text: bytes, mode: int, inode: int) -> str:
    if stat.S_ISFIFO(mode):
        return f"pipe:[{inode}]"
    return os.fsdecode(b"/" + text.rstrip(b"/")) if text else f"unnamed:[{inode}]"
