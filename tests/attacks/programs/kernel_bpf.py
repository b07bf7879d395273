"""Load into the kernel: a BPF map, a performance counter, a fault handler."""

import contextlib
import ctypes
import struct

from attack import call, main

PROMISE = "bpf, perf and userfaultfd are kernel surface, and denied"
CONTROL = "one of the calls succeeds"
ADVICE = "take `bpf`, `perf` and `userfaultfd` out of your kernel rules"


def attempt() -> bool:
    array_map = ctypes.create_string_buffer(struct.pack("=5I", 2, 4, 4, 1, 0), 72)
    counter = ctypes.create_string_buffer(struct.pack("=IIQQQQQ", 1, 64, 0, 0, 0, 0, 0x60), 64)
    refused = PermissionError("refused")
    for way in (
        lambda: call("bpf", 0, array_map, 72),
        lambda: call("perf_event_open", counter, 0, -1, -1, 0),
        lambda: call("userfaultfd", 0o2000000 | 1),
    ):
        with contextlib.suppress(OSError):
            way()
            return True
    raise refused


main(attempt, needs="bpf, perf or userfaultfd for this user")
