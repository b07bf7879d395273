"""Give calls wild arguments: huge vectors, bad pointers, endless strings, deep paths; then read a denied file."""

import contextlib
import ctypes
import mmap
import os
import socket
import struct

from attack import AT_FDCWD, SECRET, call, main, read
from race import address_of

PROMISE = "arguments without sense are errors, not holes"
CONTROL = "the decoy is read"
ADVICE = "report it: what cannot be read denies"
WILD = (0, 1, 8, 1 << 47, (1 << 63) - 1, (1 << 64) - 1, 0xFFFFFFFF, 0xFFFF800000000000)


def attempt() -> bool:
    page = mmap.mmap(-1, 8192)
    page[:] = b"a" * 8192
    end = address_of(page) + 8192 - 1
    client = socket.socket(type=socket.SOCK_DGRAM)
    vectors = ctypes.create_string_buffer(struct.pack("=QQ", address_of(page), (1 << 63) - 1) * 1024)
    for wild in (*WILD, end, address_of(page)):
        for each in (
            lambda wild=wild: call("openat", AT_FDCWD, wild, 0, 0),
            lambda wild=wild: call("openat", AT_FDCWD, SECRET, wild, wild),
            lambda wild=wild: call("openat2", AT_FDCWD, SECRET, wild, wild),
            lambda wild=wild: call("newfstatat", AT_FDCWD, SECRET, wild, wild),
            lambda wild=wild: call("connect", client.fileno(), wild, wild),
            lambda wild=wild: call("connect", client.fileno(), end, 128),
            lambda wild=wild: call("sendto", client.fileno(), wild, wild, 0, wild, wild),
            lambda wild=wild: call("sendmsg", client.fileno(), wild, 0),
            lambda wild=wild: call("sendmmsg", client.fileno(), wild, wild, 0),
            lambda wild=wild: call("renameat2", wild, wild, wild, wild, wild),
            lambda wild=wild: call("setxattr", SECRET, wild, wild, wild, 0),
            lambda wild=wild: call("utimensat", AT_FDCWD, wild, wild, wild),
            lambda wild=wild: call("readlinkat", AT_FDCWD, SECRET, wild, wild),
            lambda wild=wild: call("execveat", AT_FDCWD, wild, wild, wild, wild),
            lambda wild=wild: call("execve", SECRET, wild, wild),
            lambda wild=wild: call("statx", AT_FDCWD, SECRET, 0, wild, wild),
            lambda wild=wild: call("bind", client.fileno(), wild, 110),
        ):
            with contextlib.suppress(OSError):
                each()
    header = ctypes.create_string_buffer(struct.pack("=QI4xQQQQi4x", 0, 0, ctypes.addressof(vectors), 1 << 40, 0, 0, 0))
    for path in ("x" * 5000, "y/" * 2047, "/." * 2000, "../" * 1300 + SECRET, "z" * 256, "\n" * 4000, ""):
        with contextlib.suppress(OSError):
            os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):
        call("sendmsg", client.fileno(), header, 0)
    return read(SECRET)


main(attempt)
