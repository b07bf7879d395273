"""Read the signing key, or plant another one."""

import contextlib
import os

from attack import FACTS, main

PROMISE = "the key is nobody's but the supervisor's"
CONTROL = "a file of the key directory opens"
ADVICE = "report it: the state directory is blocked in every run"


def attempt() -> bool:
    place = f"{FACTS['state']}/keys"
    for name in (*FACTS["keys"], "new"):
        for how in (os.O_RDONLY, os.O_WRONLY, os.O_CREAT | os.O_WRONLY):
            for path in (f"{place}/{name}", f"/proc/self/root{place}/{name}", f"{place}/../keys/{name}"):
                with contextlib.suppress(OSError):
                    os.close(os.open(path, how))
                    return True
    with contextlib.suppress(OSError):
        return bool(os.listdir(place))
    return False


main(attempt)
