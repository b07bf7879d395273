"""Have the dynamic loader run a program: `ld.so PROGRAM`."""

import os

from attack import FACTS, NotPossible, main

PROMISE = "a loader is a program, and needs a rule to be run as one"
CONTROL = "the loader runs the program"
ADVICE = "take the loaders out of your exec rules"


def attempt() -> bool:
    loaders = [path for path in FACTS["loaders"] if os.path.exists(path) or FACTS["supervised"]]
    if not loaders:
        raise NotPossible("no dynamic loader here")
    for loader in loaders:
        child = os.fork()
        if child == 0:
            try:
                os.execv(loader, [loader, "--verify", FACTS["python"]])
            finally:
                os._exit(9)
        if os.waitpid(child, 0)[1] >> 8 in (0, 1, 2):  # what the loader itself says
            return True
    return False


main(attempt)
