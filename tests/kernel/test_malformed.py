"""Calls whose memory makes no sense: the kernel's own errno, and a supervisor that neither fails nor leaks nor allows.

Unmapped pages, texts without an end at the end of a page, texts as long as PATH_MAX, addresses of the kernel's, wild
counts of iovecs, bad lengths of addresses. SENTRY_MALFORMED says how many calls.
"""

import json
import os
import random
import socket
import struct
import time
from pathlib import Path

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.syscalls import Row, Treatment
from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_FDCWD,
    EVERYTHING,
    READ_ONLY,
    UNMAPPED,
    ZEROES,
    Argument,
    Raw,
    Ref,
    unterminated,
    words,
)
from tests.kernel.live_twins import LiveTwins, live_twins
from tests.kernel.test_differential_files import seed

pytestmark = pytest.mark.kernel

CALLS = int(os.environ.get("SENTRY_MALFORMED", "1500"))
NETWORK = """
  - {id: memory, kernel: [memfd]}
  - {id: connect, connect: {addresses: [loopback], ports: [any]}}
  - {id: bind, bind: {addresses: [any], ports: [any]}}
  - {id: unix, unix: {do: [connect, bind], paths: ["${workspace}/**"]}}
"""
CLOSED = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: program-file, file: {do: [read], paths: ["${program}"]}}
  - {id: place, file: {do: [stat], paths: ["${workspace}/s/1/2/3/tree"]}}
"""
# What names processes or starts programs is not made at random natively. SO_ZEROCOPY and its like have tests of their own.
ELSEWHERE = {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "execve", "execveat",
             "setpriority", "ioprio_set", "prlimit64", "setrlimit", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
             "clone3", "socket", "setsockopt", "listen", "setxattrat", "getxattrat", "listxattrat", "removexattrat"}  # fmt: skip
POINTERS = {"path", "string", "buf", "ptr", "sockaddr", "msghdr", "mmsghdr", "stat_buf", "statx_buf", "statfs_buf", "utimbuf",
            "timeval", "timespec", "open_how"}  # fmt: skip
READING = [
    row
    for _, row in sorted(syscalls.table(native()).items())
    if row.treatment is Treatment.MEDIATE and any(a.kind in POINTERS for a in row.arguments)
]
ROWS = [row for row in READING if row.name not in ELSEWHERE]
# Supervised alone, where none of what they point to can be read, these do no harm.
UNREADABLE = [*ROWS, *(row for row in READING if row.name.startswith("exec") or row.name.endswith("xattrat"))]
NULL_IS_FINE = {
    ("utimensat", "utimes"),
    ("utime", "times"),
    ("utimes", "utimes"),
    ("futimesat", "utimes"),
    ("futimesat", "filename"),
}
WILD = [
    0,
    1,
    -1,
    2,
    3,
    16,
    28,
    109,
    110,
    111,
    128,
    129,
    255,
    4095,
    4096,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 62,
    -(1 << 63),
]
ADDRESSES = [
    UNMAPPED, 0, 1, -1, -4096, 1 << 47, (1 << 47) - 1, -(1 << 63), (1 << 63) - 1, unterminated(b"a"), unterminated(b""), unterminated(b"d/" * 2000),
    unterminated(b"/" * 4096), unterminated(b"/" * 4097), unterminated(b"/" * 5000),
]  # fmt: skip
LONG = ["a" * 4095, "a" * 4096, "./" * 2047, "./" * 2048, "n" * 256, "user." + "x" * 251]
SOCKADDRS = [
    struct.pack("=HH4s8x", socket.AF_INET, 0xFFFF, bytes((127, 0, 0, 1))), struct.pack("=HHI16sI", socket.AF_INET6, 0xFFFF, 0, bytes(15) + b"\1", 0),
    b"\1\0a", b"\1\0" + b"x" * 108, b"\1\0", b"\0\0" + bytes(30), b"\1",
]  # fmt: skip


SOCKADDRS = [address.ljust(160, b"\0") for address in SOCKADDRS]  # as long as any length the kernel would read
RENAMES = ("rename", "renameat", "renameat2")
SENDS = ("sendto", "sendmsg", "sendmmsg")
STREAMS = (1, 3)  # of `descriptors`: that they are not connected is found before or after what is wrong with a message


# Calls that are wrong in two ways, of which the broker reports the other one: what it is, natively, supervised.
ORDER = {
    *((name, state, "EINVAL") for name in SENDS for state in ("ENOTCONN", "EDESTADDRREQ")),  # nobody, control data
    ("linkat", "EFAULT", "ENOENT"),  # second path, AT_EMPTY_PATH without the capability
    *((name, "EACCES", wrong) for name in RENAMES for wrong in ("EFAULT", "ENOENT")),  # search, second path
}


def bad(chance: random.Random) -> Argument:
    """An address of nothing that any call could use."""
    return chance.choice(ADDRESSES)


def message(chance: random.Random, pointer: object) -> Raw:
    """A msghdr in which something is wrong."""
    # Not addresses of the kernel's: whether it looks at them before or after something else is wrong differs by version.
    vector = words(
        *[
            part
            for _ in range(4)
            for part in (chance.choice([UNMAPPED, ZEROES, 0, 1]), chance.choice([0, 1, 5, 4096, -1]))
        ]
    )
    control = struct.pack(
        "=QII", chance.choice([0, 15, 16, 20, 1 << 40]), chance.choice([0, 1, 0xFFFF]), chance.choice([1, 2, 3, 99])
    ) + bytes(8)
    return words(
        chance.choice([0, 0, pointer(), chance.choice(SOCKADDRS)]), chance.choice(WILD), chance.choice([vector, pointer()]),  # type: ignore[operator]
        chance.choice([0, 1, 2, 1024, 1025, 1 << 31, 1 << 40, -1]), chance.choice([0, pointer(), control]), chance.choice([0, 1, 16, 24, 1 << 40]), 0,  # type: ignore[operator]
    )  # fmt: skip


def arguments(chance: random.Random, row: Row, descriptors: list[Ref], all_bad: bool) -> list[Argument]:
    """Random arguments for a call; with `all_bad` nothing behind any of its addresses is of use."""

    def pointer() -> Argument:
        return bad(chance)

    found: list[Argument] = []
    for each in row.arguments:
        kind = each.kind
        if kind in ("fd", "dirfd"):
            usable = [one for at, one in enumerate(descriptors) if not (row.name in SENDS and at in STREAMS)]
            wrong = [-1, 9999] if "xattr" in row.name else [-1, 9999, AT_FDCWD]  # docs/limitations.md
            found.append(chance.choice([*usable, *usable, *wrong]))
        elif row.name in SENDS and kind in ("uint", "size"):
            found.append(chance.choice([0, 0, 1, 5, 4096] if kind == "size" else [0, 0, 0x40, 0x4000, 0x80000000]))
        elif kind == "at_flags":
            found.append(chance.choice([0, 0, 1, 0x100, 0x1000, 0x100 | 0x1000, 1 << 31]))
        elif kind not in POINTERS:
            found.append(chance.choice([0, 0, chance.choice(WILD)]))
        elif (row.name, each.name) == ("sendto", "buff") and not all_bad:
            found.append(chance.choice([UNMAPPED, ZEROES, 0, 1]))  # as in `message`
        elif all_bad and kind not in ("path", "string"):
            found.append(chance.choice([UNMAPPED, 1, -1, 1 << 47, -(1 << 63)]))
        elif kind == "sockaddr" and row.name.startswith("get"):
            found.append(chance.choice([UNMAPPED, READ_ONLY, ZEROES, 0, 1]))
        elif kind == "sockaddr":  # a text would be an address of some family
            found.append(chance.choice([UNMAPPED, 0, 1, *SOCKADDRS]))
        elif all_bad or chance.random() < 0.6:
            found.append(pointer() if (row.name, each.name) not in NULL_IS_FINE else UNMAPPED)
        elif kind in ("msghdr", "mmsghdr"):
            found.append(message(chance, pointer))
        elif kind in ("path", "string"):
            found.append(chance.choice(["a", "d", "", *LONG]))
        else:
            found.append(chance.choice([READ_ONLY, ZEROES]))
    return found


def descriptors(twins: LiveTwins) -> list[Ref]:
    """A socket of each sort that needs no rule, a file, and a directory."""
    opened = [
        twins.call("socket", *kind, 0)[0]
        for kind in (
            (socket.AF_INET, socket.SOCK_DGRAM),
            (socket.AF_INET, socket.SOCK_STREAM),
            (socket.AF_INET6, socket.SOCK_DGRAM),
        )
    ]
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        opened.append(twins.call("socket", socket.AF_UNIX, kind | socket.SOCK_NONBLOCK, 0)[0])
    return opened


def settled(pid: int, most: int) -> int:
    """Return how many descriptors a process has, once they are no more than `most` or it has had its time."""
    deadline = time.monotonic() + 5
    while (count := len(os.listdir(f"/proc/{pid}/fd"))) > most and time.monotonic() < deadline:
        pass
    return count


def test_the_errno_is_the_kernels(sandbox: Sandbox, victims: Path) -> None:
    chance = random.Random(os.environ.get("SENTRY_SEED", "0"))
    with live_twins(sandbox, victims / "file_calls", EVERYTHING.rstrip() + NETWORK) as twins:
        twins.order = ORDER
        pid, first = twins.supervised.process.pid, 0
        while twins.calls < CALLS:
            twins.begin(seed)
            opened = descriptors(twins)
            opened += [twins.call("open", path, os.O_RDONLY)[0] for path in ("a", "d")]
            for _ in range(100):
                row = chance.choice(ROWS)
                twins.call(row.name, *arguments(chance, row, opened, all_bad=False))
            twins.finish()
            if os.getuid() == 0:  # an ordinary user cannot look into the supervisor
                first = first or len(os.listdir(f"/proc/{pid}/fd"))
                assert settled(pid, first + 4) <= first + 4
        print(f"{twins.calls} calls")


def test_nothing_is_allowed_for_what_cannot_be_read(sandbox: Sandbox, victims: Path) -> None:
    chance = random.Random(os.environ.get("SENTRY_SEED", "1"))
    with live_twins(sandbox, victims / "file_calls", CLOSED) as twins:
        twins.begin(seed)
        opened = descriptors(twins)
        twins.supervised.ask("self")
        (run,) = sandbox.runs()
        before, pid = (run / "audit.jsonl").stat().st_size, twins.supervised.process.pid
        held = len(os.listdir(f"/proc/{pid}/fd")) if os.getuid() == 0 else 0
        for at in range(CALLS // 4):
            row = UNREADABLE[at] if at < len(UNREADABLE) else chance.choice(UNREADABLE)
            script = twins.script.__class__(outs=list(twins.script.outs))
            script.call(row.name, *arguments(chance, row, opened, all_bad=True))
            value, code, _ = twins.supervised.ask(script.lines[-1])
            nothing = row.name == "sendmmsg" and value == 0  # no message at all
            assert nothing or (value == -1 and code), (script.words[-1], value)
        with (run / "audit.jsonl").open() as log:
            log.seek(before)
            allowed = [record for line in log if (record := json.loads(line)).get("verdict") == "ALLOW"]
        assert not allowed, allowed[0]
        assert not held or settled(pid, held + 4) <= held + 4
        twins.finish()
