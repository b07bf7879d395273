"""Change mode, owner, times and attributes of a denied file, by path."""

import os

from attack import OUTSIDE, main

PROMISE = "changing what a file is called, who owns it and when it changed are rights of their own"
CONTROL = "one of the changes is made"
ADVICE = "take chmod, chown, utime and xattr out of the rule that allows the file"
VICTIM = f"{OUTSIDE}/victim"

WAYS = (
    lambda: os.chmod(VICTIM, 0o777),
    lambda: os.chown(VICTIM, os.getuid(), os.getgid()),
    lambda: os.lchown(VICTIM, os.getuid(), os.getgid()),
    lambda: os.utime(VICTIM, (1, 1)),
    lambda: os.setxattr(VICTIM, "user.decoy", b"x"),
    lambda: os.removexattr(VICTIM, "user.decoy"),
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
