"""Send a denied file's path descriptor to oneself, to get it back as something better."""

import array
import os
import socket

from attack import OUTSIDE, main, read

PROMISE = "descriptors that are passed on carry no more than they had"
CONTROL = "the passed descriptor gives the decoy"
ADVICE = "report it: what a descriptor refers to is judged when it is opened"


def attempt() -> bool:
    left, right = socket.socketpair()
    outside = os.open(OUTSIDE, os.O_PATH)
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [outside]))])
    data = right.recvmsg(1, socket.CMSG_SPACE(4))[1]
    (passed,) = array.array("i", data[0][2][:4])
    return read(f"/proc/self/fd/{passed}/secret")


main(attempt)
