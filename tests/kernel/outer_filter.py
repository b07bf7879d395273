"""What a container's supervisor does: own a listener, and let the kernel carry out what it is notified of.

    outer_filter.py SYSCALL PROGRAM [ARGUMENT…]

runs a program under a filter that notifies SYSCALL, none if it is `none`.
"""

import os
import select
import socket
import sys

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.structs import SOCK_FILTER
from helm_sentry.intercept.notify import Listener


def program(name: str) -> bytes:
    number = -1 if name == "none" else syscalls.number(name, native())
    return b"".join(
        SOCK_FILTER.pack(*instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # the number
            (0x15, 0, 1, number & 0xFFFFFFFF),
            (0x06, 0, 0, flags.SECCOMP_RET_USER_NOTIF),
            (0x06, 0, 0, flags.SECCOMP_RET_ALLOW),
        )
    )


def serve(channel: socket.socket) -> None:
    _, (descriptor,), _, _ = socket.recv_fds(channel, 1, 1)
    channel.close()
    for standard in range(3):
        os.close(standard)  # whoever reads what the program writes is not to wait for us
    listener, poller = Listener(descriptor), select.poll()
    poller.register(descriptor, select.POLLIN)
    while not poller.poll()[0][1] & select.POLLHUP:  # until nobody is under the filter any more
        if notification := listener.receive():
            listener.send_continue(notification.id)
    os._exit(0)


def main() -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        if os.fork():  # what is executed below is not to have it for a child
            os._exit(0)
        serve(theirs)
    os.waitpid(child, 0)
    theirs.close()
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    descriptor = libc.seccomp_listener(program(sys.argv[1]), 0)
    socket.send_fds(ours, [b"!"], [descriptor])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
