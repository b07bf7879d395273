"""Enter a user namespace, where an ordinary user is root: unshare, clone, clone3, setns."""

import contextlib
import ctypes
import os
import struct

from attack import FACTS, call, main

NEWUSER, NEWNS, SIGCHLD = 0x10000000, 0x20000, 17
PROMISE = "namespaces are kernel surface, and denied"
CONTROL = "one of the calls succeeds"
ADVICE = "take `namespace` out of your kernel rules"


def clone3() -> int:
    arguments = ctypes.create_string_buffer(struct.pack("=8Q", NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0))
    return call("clone3", arguments, 64)


def joined() -> int:
    process = os.pidfd_open(FACTS["bystander"])
    return call("setns", process, NEWNS)


def attempt() -> bool:
    forks = (lambda: call("clone", NEWUSER | SIGCHLD, 0, 0, 0, 0), clone3)
    for way in (*forks, lambda: call("unshare", NEWUSER), lambda: call("unshare", NEWNS), joined):
        with contextlib.suppress(OSError):
            if way() == 0 and way in forks:
                os._exit(0)  # the child
            return True
    return False


main(attempt, needs="user namespaces for this user")
