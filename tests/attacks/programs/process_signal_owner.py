"""Have the kernel signal another process: as the owner of a socket (F_SETOWN, FIOSETOWN, SIOCSPGRP, F_SETOWN_EX)."""

import contextlib
import fcntl
import os
import socket
import struct

from attack import FACTS, main

NUMBER = 41
WITNESS = f"signal {NUMBER}"
F_SETSIG, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP = 10, 15, 0x8901, 0x8902
PROMISE = "signals that the kernel sends for the agent stay with the agent"
CONTROL = "the signal waits at the other process"
ADVICE = "use Linux 6.12 or newer: Landlock's signal scope holds this"


def attempt() -> bool:
    target = FACTS["bystander"]
    ways = (
        lambda own: fcntl.fcntl(own, fcntl.F_SETOWN, target),
        lambda own: fcntl.fcntl(own, F_SETOWN_EX, struct.pack("=ii", 1, target)),
        lambda own: fcntl.ioctl(own, FIOSETOWN, struct.pack("=i", target)),
        lambda own: fcntl.ioctl(own, SIOCSPGRP, struct.pack("=i", target)),
    )
    asked = False
    for way in ways:
        left, right = socket.socketpair()
        with left, right, contextlib.suppress(OSError):
            way(left)
            fcntl.fcntl(left, F_SETSIG, NUMBER)
            fcntl.fcntl(left, fcntl.F_SETFL, os.O_ASYNC)
            right.send(b"x")
            asked = True
    return asked  # the witness knows whether it arrived


main(attempt)
