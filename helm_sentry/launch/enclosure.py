"""A Landlock domain around a process and all it will start, so that one kill(2) ends everything beneath it.

A scan of /proc loses against processes that fork and exit faster than it reads. `kill(-1)` does not: the kernel walks
every process with fork held off. Landlock's signal scope keeps it from whatever is outside. The agent's own domain lies
within, so the agent can signal neither the supervisor nor the guardian.
"""

import contextlib
import os
import signal

from helm_sentry.abi import flags, libc, structs

_SCOPE_SIGNAL = 1 << 1  # <linux/landlock.h> LANDLOCK_SCOPE_SIGNAL, ABI 6


def enclose() -> bool:
    """Put the calling process, which has one thread, into a domain of its own; there is no way back.

    Returns:
        Whether `kill_enclosed` reaches what this process starts from now on and nothing else.
    """
    try:
        ruleset = libc.landlock_create_ruleset(structs.LANDLOCK_RULESET_ATTR.pack(0, 0, _SCOPE_SIGNAL))
    except OSError:
        return False  # no Landlock, or one without signal scope
    try:
        libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
        libc.landlock_restrict_self(ruleset)
    except OSError:
        return False
    finally:
        os.close(ruleset)
    return _wall_holds()


def kill_enclosed() -> None:
    """Kill every process in the domain but this one, in a single step that no fork can slip through."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody was left
        os.kill(-1, signal.SIGKILL)


def _wall_holds() -> bool:
    """Whether the parent, who is outside, is out of reach: no broadcast without having felt the wall."""
    parent = os.getppid()
    if parent == 0:
        return True  # it lives in another PID namespace, where no broadcast goes
    try:
        os.kill(parent, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False
