"""Terminals: an agent has its own ones, never another terminal of the same user.

/dev/pts/* holds every pseudo terminal of a user, and whoever opens one reads what is typed there and writes what is
seen. So beside the policy's word a terminal must be the run's: the one it was started at, the caller's controlling
terminal, or one whose other side (the master) a process of the run holds open.
"""

import errno
import os
from contextlib import suppress
from functools import cache

from helm_sentry.abi import libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.broker.call import Call
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.intercept.process_tree import descendants, stat_fields, thread_group

OTHERS = Decision(Verdict.DENY, Reason.BUILTIN, "sentry/own-terminals")
_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt: Unix98 pseudo terminals


def is_anothers(call: Call, device: int) -> bool:
    """Whether a character device is a pseudo terminal that is not the run's."""
    if os.major(device) not in _MAJORS or device in _given():
        return False
    return device != controlling(call.tid) and not _mastered(call, device)


def controlling(tid: int) -> int:
    """Return the device of a thread's controlling terminal, 0 when it has none."""
    number = int(stat_fields(thread_group(tid))[4]) & 0xFFFFFFFF  # encoded as new_encode_dev() does
    return os.makedev(number >> 8 & 0xFFF, (number & 0xFF) | (number >> 12 & 0xFFF00)) if number else 0


def open_controlling(tid: int, open_flags: int) -> int:
    """Open what /dev/tty means to the agent: its own controlling terminal, not the supervisor's.

    Raises:
        OSError: ENXIO when the agent's session has none.
    """
    device = controlling(tid)
    if not device:
        raise OSError(errno.ENXIO, "no controlling terminal")
    minor = os.minor(device)
    name = b"/dev/pts/%d" % minor if os.major(device) in _MAJORS else b"/dev/tty%d" % minor
    opened = libc.openat(AT_FDCWD, name, open_flags)
    if os.fstat(opened).st_rdev != device:
        os.close(opened)
        raise OSError(errno.ENXIO, "the controlling terminal has no name here")
    return opened


@cache
def _given() -> frozenset[int]:
    """Return the terminals that the run was started with: those of its standard streams, and its own session's."""
    found = {controlling(os.getpid())}
    for stream in range(3):
        with suppress(OSError):
            found.add(os.fstat(stream).st_rdev)
    return frozenset(found - {0})


def _mastered(call: Call, device: int) -> bool:
    """Whether a process of the run holds the master of a pseudo terminal open; its slave carries the same number."""
    index = b"\ntty-index:\t%d\n" % os.minor(device)
    holders = dict.fromkeys([call.tid, *descendants(call.broker.resolver.guardian)])
    return any(_holds(pid, index) for pid in holders)


def _holds(pid: int, index: bytes) -> bool:
    with suppress(OSError):  # it has just ended, or hides: then it does not count
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").endswith("/ptmx"):
                    with open(f"/proc/{pid}/fdinfo/{name}", "rb") as file:
                        if index in file.read():
                            return True
    return False
