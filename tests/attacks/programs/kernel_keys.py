"""Put a key into a keyring of the kernel, and look for others."""

import contextlib

from attack import call, main

PROMISE = "keyrings are kernel surface, and denied"
CONTROL = "the key is there"
ADVICE = "take `keyring` out of your kernel rules"


def attempt() -> bool:
    for way in (
        lambda: call("add_key", "user", "decoy", b"x", 1, -2),
        lambda: call("keyctl", 0, -3, 1),
        lambda: call("request_key", "user", "decoy", 0, 0),
    ):
        with contextlib.suppress(OSError):
            way()
            return True
    return False


main(attempt)
