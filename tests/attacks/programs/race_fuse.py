"""Mount a FUSE file system, on which every read of the agent's memory can be made to wait."""

import os

from attack import WORK, NotPossible, call, main

CLONE_NEWNS, MS_PRIVATE_ALL = 0x20000, 0x44000
PROMISE = "no file system of the agent's own making"
CONTROL = "the file system is mounted"
ADVICE = "take /dev/fuse and `mount` out of your rules"


def attempt() -> bool:
    device = os.open("/dev/fuse", os.O_RDWR)
    os.mkdir(f"{WORK}/fuse")
    try:
        call("unshare", CLONE_NEWNS)  # so that the control leaves nothing behind
        call("mount", "none", "/", 0, MS_PRIVATE_ALL, 0)
    except OSError as error:
        raise NotPossible(str(error)) from error
    data = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    return call("mount", "decoy", f"{WORK}/fuse", "fuse", 0, data) == 0


main(attempt, needs="the right to mount FUSE")
