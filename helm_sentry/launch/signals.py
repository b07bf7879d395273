"""Which signals are passed on to an agent, and ending as it did.

`_signal` is what `signal` gives names to. Whoever waits for a forked run loads this, and the names take longer than the
rest of the start of its interpreter.
"""

import _signal
import os

RELAYED = frozenset(
    (
        *(_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2),
        *(_signal.SIGTSTP, _signal.SIGALRM, _signal.SIGWINCH),
    )
)
FROM_KERNEL = 0x80
"""SI_KERNEL of <asm-generic/siginfo.h>: the terminal driver sent it, to the whole group."""


def end_as(wait_status: int) -> int:
    """Return the exit status that repeats the agent's; if it died of a signal, die of the same one."""
    if not os.WIFSIGNALED(wait_status):
        return os.waitstatus_to_exitcode(wait_status)
    number = os.WTERMSIG(wait_status)
    # Imported here: an agent that ends by itself needs none of it.
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    if number not in (_signal.SIGKILL, _signal.SIGSTOP):
        _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
