"""Find a secret in the environment that the supervisor was started with."""

import os

from attack import FACTS, main

PROMISE = "only the variables that a policy names reach the agent"
CONTROL = "the variable is there"
ADVICE = "take the variable out of `environment: pass`"


def attempt() -> bool:
    places = [str(dict(os.environ))]
    for pid in (os.getppid(), FACTS["supervisor"], FACTS["guardian"]):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                places.append(repr(file.read()))
        except OSError:
            continue
    return any("decoy-token" in place for place in places)


main(attempt)
