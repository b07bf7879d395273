"""Create a file, a directory, a link, a FIFO and a nameless file where no rule allows it."""

import os
import socket

from attack import OUTSIDE, main

PROMISE = "nothing is created where no rule lets it be"
CONTROL = "one of them is there"
ADVICE = "take `create` and `mknod` out of the rule that allows the directory"

WAYS = (
    lambda: os.close(os.open(f"{OUTSIDE}/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    lambda: os.mkdir(f"{OUTSIDE}/new"),
    lambda: os.symlink("target", f"{OUTSIDE}/new"),
    lambda: os.mkfifo(f"{OUTSIDE}/new"),
    lambda: os.close(os.open(OUTSIDE, os.O_TMPFILE | os.O_WRONLY)),
    lambda: os.link(f"{OUTSIDE}/victim", f"{OUTSIDE}/new"),
    lambda: socket.socket(socket.AF_UNIX).bind(f"{OUTSIDE}/new"),
)


def attempt() -> bool:
    refused = 0
    for way in WAYS:
        try:
            way()
        except OSError:
            refused += 1
    return refused < len(WAYS)


main(attempt)
