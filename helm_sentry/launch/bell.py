"""The bell: a process that does nothing, so that a signal sent to it is an event for whoever traces it.

A tracer waits for its tracees in one system call, and the kernel offers no way to wait for anything else with it.
Ringing the bell is making a tracee stop.
"""

import os
import signal

from helm_sentry.abi import flags, libc
from helm_sentry.confine import credentials
from helm_sentry.confine.credentials import Identity
from helm_sentry.intercept.tracer import RING


def cast(identity: Identity) -> int:
    """Fork a bell, and return its process id once a tracer with this identity and no capability can seize it."""
    cast, finished = os.pipe()
    bell = os.fork()
    if bell:
        os.close(finished)
        os.read(cast, 1)
        os.close(cast)
        return bell
    try:
        os.setsid()  # what the terminal sends is not for it
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {RING})
        credentials.assume_in_process(identity)
        libc.prctl(flags.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(0, 1 << 20)
        while True:
            signal.pause()
    finally:
        os._exit(0)
