"""Signal another process of the user, by every call that does."""

import contextlib
import ctypes
import os
import signal
import struct

from attack import FACTS, call, main

NUMBER = 40
WITNESS = f"signal {NUMBER}"
PROMISE = "signals reach the agent's own processes only"
CONTROL = "the signal waits at the other process"
ADVICE = "report it: Landlock's signal scope and the supervisor both refuse"


def attempt() -> bool:
    target = FACTS["bystander"]
    info = ctypes.create_string_buffer(struct.pack("=iii", NUMBER, 0, -1), 128)
    ways = (
        lambda: call("kill", target, NUMBER),
        lambda: call("tkill", target, NUMBER),
        lambda: call("tgkill", target, target, NUMBER),
        lambda: call("rt_sigqueueinfo", target, NUMBER, info),
        lambda: call("rt_tgsigqueueinfo", target, target, NUMBER, info),
        lambda: signal.pidfd_send_signal(os.pidfd_open(target), NUMBER),
        lambda: signal.pidfd_send_signal(os.open(f"/proc/{target}", os.O_PATH), NUMBER),
    )
    sent = False
    for way in ways:
        with contextlib.suppress(OSError):
            way()
            sent = True
    return sent


main(attempt)
