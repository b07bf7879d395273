"""Change the log of the run: append to it, cut it, replace it, move its directory away."""

import contextlib
import os

from attack import FACTS, WORK, main

PROMISE = "the log is nobody's but the supervisor's"
CONTROL = "the stand-in's log is changed"
ADVICE = "report it: the state directory is blocked in every run"


def attempt() -> bool:
    run = FACTS["run"]
    log = f"{run}/audit.jsonl"
    with open(f"{WORK}/forged", "w") as file:
        file.write("{}\n")
    ways = (
        lambda: os.close(os.open(log, os.O_WRONLY | os.O_APPEND)),
        lambda: os.truncate(log, 0),
        lambda: os.rename(f"{WORK}/forged", log),
        lambda: os.link(log, f"{WORK}/twin"),
        lambda: os.unlink(log),
        lambda: os.chmod(run, 0o777),
        lambda: os.rename(run, f"{run}.old"),
        lambda: os.rename(FACTS["state"], f"{FACTS['state']}.old"),
        lambda: os.rename(os.path.dirname(FACTS["state"]), f"{WORK}/state"),
        lambda: os.symlink(WORK, f"{FACTS['state']}/runs/planted"),
    )
    for way in ways:
        with contextlib.suppress(OSError):
            way()
            return True
    return False


main(attempt)
