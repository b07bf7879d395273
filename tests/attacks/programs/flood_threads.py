"""Make many threads ask at once, and read a denied file among them."""

import contextlib
import threading
import time

from attack import SECONDS, SECRET, WORK, main, read

PROMISE = "however many ask, each is answered by the policy"
CONTROL = "one of the threads gets the decoy"
ADVICE = "report it: every call is decided"


def attempt() -> bool:
    end = time.monotonic() + SECONDS
    got: list[str] = []

    def ask(path: str) -> None:
        while time.monotonic() < end and not got:
            with contextlib.suppress(OSError):
                if read(path):
                    got.append(path)

    paths = [SECRET, f"{WORK}/hide0/secret", f"{WORK}/hide1/secret", "/nonexistent"]
    threads = [threading.Thread(target=ask, args=(paths[number % 4],)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bool(got)


main(attempt)
