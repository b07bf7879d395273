"""The least a Python supervisor can do: read the path, open it, hand the descriptor over. No policy, no pin, no log.

The floor that `quick.py` measures helm-sentry against. It is no sandbox: it opens whatever it is asked to.
"""

import os
import socket
import sys

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.structs import SOCK_FILTER
from helm_sentry.intercept.notify import Listener, Notification

OPENAT = syscalls.number("openat", native())
PROGRAM = b"".join(
    SOCK_FILTER.pack(*instruction)
    for instruction in (
        (0x20, 0, 0, 0),  # load the syscall number
        (0x15, 0, 1, OPENAT),
        (0x06, 0, 0, flags.SECCOMP_RET_USER_NOTIF),
        (0x06, 0, 0, flags.SECCOMP_RET_ALLOW),
    )
)


def serve(listener: Listener, agent: int) -> int:
    """Serve until the agent has ended and return its exit status."""
    memory = -1
    while True:
        notification = listener.receive()
        if notification is None:
            ended, status = os.waitpid(agent, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            continue
        if memory < 0:
            memory = os.open(f"/proc/{notification.tid}/mem", os.O_RDONLY)
        path = os.pread(memory, 256, notification.args[1]).partition(b"\0")[0]
        if not path:  # the program has been executed meanwhile: this is another memory
            os.close(memory)
            memory = -1
            listener.send_continue(notification.id)
            continue
        answer(listener, notification, path)


def answer(listener: Listener, notification: Notification, path: bytes) -> None:
    try:
        opened = os.open(path, notification.args[2] & 0xFFFFFFFF)
    except OSError as error:
        listener.send_errno(notification.id, error.errno or 5)
        return
    listener.inject(notification, opened, close_on_exec=True)
    os.close(opened)


def main() -> int:
    ours, theirs = socket.socketpair()
    agent = os.fork()
    if agent == 0:
        libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
        listener = libc.seccomp_listener(PROGRAM, flags.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        socket.send_fds(theirs, [b"listener"], [listener])
        os.close(listener)
        theirs.recv(1)
        os.execv(sys.argv[1], sys.argv[1:])
    _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    listener = Listener(descriptors[0])
    ours.send(b"!")
    ours.close()
    theirs.close()
    return serve(listener, agent)


if __name__ == "__main__":
    sys.exit(main())
