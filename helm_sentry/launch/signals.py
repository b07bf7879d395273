"""Which signals are passed on to an agent, and ending as it did. Whoever waits for a run loads no more than this."""

import os
import resource
import signal

RELAYED = {
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGALRM,
    signal.SIGWINCH,
}
FROM_KERNEL = 0x80
"""SI_KERNEL of <asm-generic/siginfo.h>: the terminal driver sent it, to the whole group."""


def end_as(wait_status: int) -> int:
    """Return the exit status that repeats the agent's; if it died of a signal, die of the same one."""
    if not os.WIFSIGNALED(wait_status):
        return os.waitstatus_to_exitcode(wait_status)
    number = os.WTERMSIG(wait_status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
