"""Type into the terminal one sits at, by TIOCSTI, also with the upper half of the request filled."""

import contextlib
import os

from attack import call, main

TIOCSTI, TIOCSCTTY = 0x5412, 0x540E
PROMISE = "nothing is typed on the user's behalf"
CONTROL = "the character is in the terminal's input"
ADVICE = "take `ioctl` out of your kernel rules"


def type_into_own_terminal() -> bool:
    os.setsid()
    _, terminal = os.openpty()
    with contextlib.suppress(OSError):
        call("ioctl", terminal, TIOCSCTTY, 0)
    for request in (TIOCSTI, 1 << 32 | TIOCSTI):
        with contextlib.suppress(OSError):
            return call("ioctl", terminal, request, b"x") == 0
    return False


def attempt() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if type_into_own_terminal() else 1)
    if os.waitpid(child, 0)[1] != 0:
        raise PermissionError("refused")
    return True


main(attempt, needs="dev.tty.legacy_tiocsti or root")
