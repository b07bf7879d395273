"""A supervisor of the kind that loses: it reads an argument, checks it, and lets the kernel go on with the call.

    python naive_supervisor.py FORBIDDEN_DIRECTORY FORBIDDEN_PORT READ_ONLY_FILE -- COMMAND...

The control of the race tests. Its checks are right; that the kernel reads the argument again is what defeats it.
"""

import errno
import os
import signal
import sys
import threading
from dataclasses import dataclass, replace

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.structs import MSGHDR, OPEN_HOW
from helm_sentry.abi.syscalls import Row, Treatment
from helm_sentry.broker.memory import Gone, Memory
from helm_sentry.intercept.interceptor import Notification
from helm_sentry.intercept.notify import Listener
from helm_sentry.launch import filter as seccomp_filter

CHECKED = {
    "open", "openat", "openat2", "rename", "renameat", "renameat2", "link", "linkat", "execve", "execveat", "chdir",
    "connect", "sendto", "sendmsg",
}  # fmt: skip


@dataclass(frozen=True)
class Forbidden:
    """What the program may not reach."""

    directory: bytes
    port: int
    read_only: bytes


class Naive:
    """Check, then continue."""

    def __init__(self, listener: Listener, forbidden: Forbidden) -> None:
        self._listener, self._forbidden = listener, forbidden
        self._memory = Memory()
        self._table = syscalls.table(native())

    def serve(self) -> None:
        while True:
            notification = self._listener.receive()
            if notification is None:
                continue
            row = self._table.get(notification.nr)
            try:
                allowed = row is None or row.name not in CHECKED or self._check(row, notification)
            except (OSError, Gone):
                allowed = True  # the kernel will meet the same bad pointer
            if allowed:
                self._listener.send_continue(notification.id)
            else:
                self._listener.send_errno(notification.id, errno.EACCES)

    def _check(self, row: Row, call: Notification) -> bool:
        for argument, value in zip(row.arguments, call.args, strict=False):
            if argument.kind == "path" and not self._path(call.tid, value):
                return False
            if argument.kind == "sockaddr" and value and not self._address(call.tid, value):
                return False
            if argument.kind == "open_how" and not self._how(call, value):
                return False
            if argument.kind == "msghdr":
                name = MSGHDR.unpack(self._memory.read(call.tid, value, MSGHDR.size))[0]
                return self._address(call.tid, name)
        return True

    def _path(self, tid: int, address: int) -> bool:
        return not self._memory.read_string(tid, address).startswith(self._forbidden.directory)

    def _address(self, tid: int, address: int) -> bool:
        return int.from_bytes(self._memory.read(tid, address + 2, 2), "big") != self._forbidden.port

    def _how(self, call: Notification, address: int) -> bool:
        open_flags = OPEN_HOW.unpack(self._memory.read(call.tid, address, OPEN_HOW.size))[0]
        reading = open_flags & os.O_ACCMODE == os.O_RDONLY
        return reading or self._memory.read_string(call.tid, call.args[1]) != self._forbidden.read_only


def _filter() -> bytes:
    arch = native()
    table = {
        number: row if row.name in CHECKED else replace(row, treatment=Treatment.ALLOW)
        for number, row in syscalls.table(arch).items()
    }
    return seccomp_filter.build(arch, table)


def _become(command: list[str], program: bytes, report: int) -> None:
    libc.prctl(flags.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    listener = libc.seccomp_listener(program, 0)
    os.write(report, listener.to_bytes(4, "little"))
    os.execv(command[0], command)


def main() -> int:
    directory, port, read_only, _, *command = sys.argv[1:]
    program = _filter()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(command, program, writing)
        finally:
            os._exit(125)
    os.close(writing)
    number = int.from_bytes(os.read(reading, 4), "little")
    pidfd = os.pidfd_open(child)
    listener = Listener(libc.pidfd_getfd(pidfd, number))
    forbidden = Forbidden(os.fsencode(directory), int(port), os.fsencode(read_only))
    threading.Thread(target=Naive(listener, forbidden).serve, daemon=True).start()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
