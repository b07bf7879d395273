"""Keep the power to gain privileges: capabilities, and programs that are set-user-id."""

import ctypes

from attack import LIBC, main

PR_GET_NO_NEW_PRIVS = 39
PROMISE = "the agent has no capability, and no program gives it one"
CONTROL = "new privileges can be had"
ADVICE = "report it: no_new_privs is set before the agent starts"


def attempt() -> bool:
    with open("/proc/self/status") as file:
        powers = int(next(line.split()[1] for line in file if line.startswith("CapEff:")), 16)
    may_gain = LIBC.prctl(PR_GET_NO_NEW_PRIVS, *[ctypes.c_ulong(0)] * 4) == 0
    return powers != 0 or may_gain


main(attempt)
