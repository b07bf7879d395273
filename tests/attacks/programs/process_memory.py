"""Read and write another process's memory."""

import contextlib
import ctypes
import os
import struct

from attack import FACTS, call, main

PROMISE = "the memory of others is out of reach"
CONTROL = "the memory gives the decoy"
ADVICE = "report it: process_vm_readv and /proc/PID/mem are denied"


def attempt() -> bool:
    target, address = FACTS["bystander"], FACTS["bystander_address"]
    found = ctypes.create_string_buffer(16)
    ours = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(found), 15))
    theirs = ctypes.create_string_buffer(struct.pack("=QQ", address, 15))
    for name in ("process_vm_readv", "process_vm_writev"):
        with contextlib.suppress(OSError):
            call(name, target, ours, 1, theirs, 1, 0)
            return True
    for how in (os.O_RDONLY, os.O_RDWR):
        with contextlib.suppress(OSError):
            return b"decoy" in os.pread(os.open(f"/proc/{target}/mem", how), 15, address)
    return False


main(attempt)
