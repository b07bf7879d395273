"""Make many calls that wait for ever, then see whether others are still answered by the policy."""

import contextlib
import os
import threading

from attack import SECRET, WORK, main, read

WAITING = 600
PROMISE = "calls that wait hold up no other call, and free none"
CONTROL = "the decoy is read"
ADVICE = "report it: the receiver never waits"


def wait(path: str) -> None:
    with contextlib.suppress(OSError):
        os.open(path, os.O_RDONLY)


def attempt() -> bool:
    os.mkfifo(f"{WORK}/fifo")
    threading.stack_size(1 << 16)
    for _ in range(WAITING):
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=wait, args=(f"{WORK}/fifo",), daemon=True).start()
    with open(f"{WORK}/after", "w") as file:  # still answered
        file.write("x")
    return read(SECRET)


main(attempt)
