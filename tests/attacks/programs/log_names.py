"""Forge records and steer the terminal with file names: newlines, quotes, escape sequences, bytes that are no text."""

import contextlib
import os

from attack import FACTS, OUTSIDE, main, read

PROMISE = "no name forges a record, steers a terminal or breaks the log"
CONTROL = "one of the files gives the decoy"
ADVICE = "report it: names are escaped in records and messages"


def attempt() -> bool:
    got = False
    for name in FACTS["odd_names"]:
        path = os.fsencode(OUTSIDE) + b"/" + bytes.fromhex(name)
        with contextlib.suppress(OSError):
            got = read(path) or got
        with contextlib.suppress(OSError):
            os.execv(path, [path, b"\x1b]0;x\x07", b'"},{"verdict":"ALLOW'])
    return got


main(attempt)
