"""Have a shell read a denied file: `sh -c`, in the background, by process substitution."""

import subprocess

from attack import SECRET, WORK, main

PROMISE = "what an agent starts has the agent's rules"
CONTROL = "one of the shells gives the decoy"
ADVICE = "report it: filter and floor are inherited"

WAYS = (
    ["sh", "-c", f"cat '{SECRET}' > '{WORK}/got' & wait"],
    ["bash", "-c", f"cat <(cat '{SECRET}') > '{WORK}/got'"],
    ["sh", "-c", f"(exec </dev/null; while read -r line; do echo $line; done < '{SECRET}') > '{WORK}/got'"],
    ["cp", SECRET, f"{WORK}/got"],
    ["tar", "-cf", f"{WORK}/got", SECRET],
)


def attempt() -> bool:
    for way in WAYS:
        try:
            subprocess.run(way, stderr=subprocess.DEVNULL, check=False, timeout=60)
            with open(f"{WORK}/got", "rb") as file:
                if b"decoy" in file.read():
                    return True
        except OSError:
            continue
    return False


main(attempt)
