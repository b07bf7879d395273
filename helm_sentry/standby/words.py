r"""What the caller of a run says about itself: words without a zero byte in them, as the kernel has them.

First a line of three numbers: how many bytes follow, how many words are arguments, and how many name the program.
Then the words, with `\0` between them: arguments, what names the program, `NAME=VALUE` of the environment.
"""

import os
import sys

from helm_sentry import state

LONGEST_HEAD = 64
"""Bytes of the first line, at most."""

MOST_BYTES = 4 << 20
"""Of the rest; what execve(2) takes is less."""


class Words:
    """What a caller says. Not a dataclass: those take a millisecond of every caller's.

    Attributes:
        arguments: of the command line.
        program: interpreter, environment, package and path of modules: what makes it this program and no other.
        environment: its variables.
    """

    __slots__ = ("arguments", "environment", "program")

    def __init__(self, arguments: tuple[str, ...], program: tuple[str, ...], environment: dict[str, str]) -> None:
        self.arguments, self.program, self.environment = arguments, program, environment


def own_words() -> Words:
    """Return what this process says about itself."""
    package = os.path.dirname(os.path.abspath(state.__file__))
    return Words(tuple(sys.argv), (sys.executable, sys.prefix, package, *sys.path), dict(os.environ))


def packed(words: Words) -> bytes:
    """Return what is sent."""
    pairs = [f"{name}={value}" for name, value in words.environment.items()]
    body = b"\0".join(map(os.fsencode, (*words.arguments, *words.program, *pairs)))
    return f"{len(body)} {len(words.arguments)} {len(words.program)}\n".encode() + body


def unpacked(head: bytes, body: bytes) -> Words:
    """Return what was sent.

    Raises:
        ValueError: it is not that.
    """
    _, arguments, program = map(int, head.split())
    every = os.fsdecode(body).split("\0")
    if min(arguments, program) < 1 or arguments + program > len(every):
        raise ValueError("fewer words than were said")
    pairs = (pair.partition("=") for pair in every[arguments + program :])
    environment = {name: value for name, _, value in pairs}
    return Words(tuple(every[:arguments]), tuple(every[arguments : arguments + program]), environment)
