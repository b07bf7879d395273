"""Use up descriptors and pending calls, then read a denied file."""

import contextlib
import os
import resource

from attack import SECRET, WORK, main, read

PROMISE = "a full descriptor table is an error, not a hole"
CONTROL = "the decoy is read"
ADVICE = "report it: a descriptor that cannot be handed over is the call's error"


def attempt() -> bool:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(f"{WORK}/readable", os.O_RDONLY))
    for _ in range(200):
        with contextlib.suppress(OSError):
            os.open(f"{WORK}/readable", os.O_RDONLY)
    for descriptor in held:
        os.close(descriptor)
    return read(SECRET)


main(attempt)
