"""Run a forbidden program as the interpreter of a script of one's own, which can be read or not."""

import os

from attack import OUTSIDE, WORK, main

RAN = 42
PROMISE = "every interpreter of a script is judged like a program"
CONTROL = "the forbidden interpreter runs"
ADVICE = "narrow the exec rule that allows the interpreter"


def attempt() -> bool:
    scripts = {
        "one": (f"{OUTSIDE}/tool", 0o755),
        "two": (f"{WORK}/bin/one", 0o755),
        "three": (f"{OUTSIDE}/tool", 0o111),
        "four": (f"{WORK}/bin/three", 0o111),
    }
    for name, (interpreter, mode) in scripts.items():
        with open(f"{WORK}/bin/{name}", "w") as file:
            file.write(f"#!{interpreter}\n")
        os.chmod(f"{WORK}/bin/{name}", mode)
    for name in scripts:
        child = os.fork()
        if child == 0:
            try:
                os.execv(f"{WORK}/bin/{name}", [name])
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1] >> 8 == RAN:
            return True
    return False


main(attempt)
