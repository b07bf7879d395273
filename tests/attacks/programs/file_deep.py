"""Stand so deep that the absolute path is longer than PATH_MAX, and go back up by relative names."""

import os

from attack import SECRET, WORK, main, read

DEPTH = 20
PROMISE = "a path that is too long to write is judged all the same"
CONTROL = "the way back gives the decoy"
ADVICE = "report it: what cannot be named must be refused"


def attempt() -> bool:
    os.chdir(WORK)
    for _ in range(DEPTH):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    way = "../" * DEPTH + os.path.relpath(SECRET, WORK)
    with open("mine", "w") as file:
        file.write("x")
    os.symlink(way, "link")
    for each in (lambda: read(way), lambda: read("link"), lambda: os.rename(SECRET, "moved") or read("moved")):
        try:
            if each():
                return True
        except OSError:
            continue
    return False


main(attempt)
