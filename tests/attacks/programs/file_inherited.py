"""Use a descriptor that the supervisor was started with."""

from attack import FACTS, NotPossible, main, read

PROMISE = "nothing that the caller left open reaches the agent"
CONTROL = "the inherited descriptor gives the decoy"
ADVICE = "report it: descriptors above 2 are closed"


def attempt() -> bool:
    if not FACTS["inherited"]:
        raise NotPossible("nothing was left open")
    return read(FACTS["inherited"])


main(attempt)
