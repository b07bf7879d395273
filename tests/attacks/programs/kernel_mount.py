"""Mount a file system, by the old call and the new ones."""

import contextlib
import os

from attack import AT_FDCWD, SECRET, WORK, call, main

PROMISE = "mounting is kernel surface, and denied"
CONTROL = "one of the calls succeeds"
ADVICE = "take `mount` out of your kernel rules"


def attempt() -> bool:
    os.mkdir(f"{WORK}/mount")
    ways = (
        lambda: call("open_tree", AT_FDCWD, SECRET, 0),
        lambda: call("fsopen", "tmpfs", 0),
        lambda: call("fspick", AT_FDCWD, "/", 0),
        lambda: call("open_tree", AT_FDCWD, "/", 1),
        lambda: call("mount", WORK, f"{WORK}/mount", 0, 0x1000, 0) if call("unshare", 0x20000) == 0 else 0,
    )
    for way in ways:
        with contextlib.suppress(OSError):
            way()
            return True
    return False


main(attempt)
