"""Exchange a denied file with one of the agent's own, by renameat2."""

from attack import AT_FDCWD, SECRET, WORK, call, main, read

RENAME_EXCHANGE = 2
PROMISE = "an exchange is judged as both renames that it is"
CONTROL = "the agent's file now holds the decoy"
ADVICE = "take `rename` out of the rule that allows the file"


def attempt() -> bool:
    with open(f"{WORK}/mine", "w") as file:
        file.write("mine")
    call("renameat2", AT_FDCWD, f"{WORK}/mine", AT_FDCWD, SECRET, RENAME_EXCHANGE)
    return read(f"{WORK}/mine")


main(attempt)
