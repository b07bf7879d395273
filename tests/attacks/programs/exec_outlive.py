"""Leave a process behind that goes on when the run has ended."""

import os
import time

from attack import WORK, main

WITNESS = "outlived"
PROMISE = "the whole tree of a run ends with it"
CONTROL = "the process left behind leaves a trace after the end"
ADVICE = "report it: the guardian ends what is left"


def attempt() -> bool:
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in range(3):
                os.close(descriptor)
            while not os.path.exists(f"{WORK}/ended"):
                if not os.path.exists(WORK):
                    os._exit(0)  # nobody will say that the run has ended
                time.sleep(0.01)
            with open(f"{WORK}/outlived", "w") as file:
                file.write("here")
        os._exit(0)
    os.waitpid(child, 0)  # by now what is left behind has a session of its own
    return True


main(attempt)
