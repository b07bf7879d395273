"""Plant a standing approval, take a socket away, read what another agent printed."""

import contextlib
import os

from attack import FACTS, WORK, main, read

PROMISE = "the state directory is out of reach"
CONTROL = "something in the stand-in's is changed or read"
ADVICE = "report it: the state directory is blocked in every run"


def attempt() -> bool:
    state = FACTS["state"]
    approval = f"{state}/approvals/{'0' * 64}.jsonl"
    with open(f"{WORK}/approval", "w") as file:
        file.write('{"rule": "ask"}\n')
    ways = (
        lambda: os.close(os.open(approval, os.O_WRONLY | os.O_CREAT, 0o600)),
        lambda: os.rename(f"{WORK}/approval", approval),
        lambda: os.link(f"{WORK}/approval", approval),
        lambda: os.unlink(f"{state}/daemon/grpc"),
        lambda: os.rename(f"{state}/daemon", f"{state}/daemon.old"),
        lambda: os.rename(f"{state}/control", f"{WORK}/control"),
        lambda: os.chmod(f"{state}/daemon/grpc", 0o777),
        lambda: os.listdir(f"{state}/control"),
        lambda: read(f"{state}/output/stand-in"),
    )
    for way in ways:
        with contextlib.suppress(OSError):
            way()
            return True
    return False


main(attempt)
