"""The guardian: the agent's parent, which outlives a killed supervisor just long enough to end the agent.

It is a subreaper, so whatever the agent leaves behind becomes its child and cannot escape by daemonising. It watches
a pipe whose other end only the supervisor holds; when that closes, or when the agent's main program ends, it kills
every descendant until none is left. It decides nothing and holds no descriptor the agent could want.
"""

import contextlib
import os
import select
import signal

from helm_sentry.abi import flags, libc
from helm_sentry.intercept.process_tree import descendants
from helm_sentry.launch.child import REPORT, Launch, become_agent

STOPPED, CONTINUED, EXITED, LEFT = b"S", b"C", b"X", b"D"
_IGNORED = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def guard(launch: Launch, lifeline: int, report: int, acknowledge: int) -> None:
    """Start the agent, watch it and the supervisor, end the whole tree. Never returns.

    Args:
        launch: the agent to start.
        lifeline: read end of a pipe that closes when the supervisor dies.
        report: pipe to the supervisor: stops, continuations, exit status, processes left behind.
        acknowledge: handed to the child.
    """
    try:
        libc.prctl(flags.PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        agent = os.fork()
        if agent == 0:
            become_agent(launch, report, acknowledge)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        os.close(acknowledge)
        if launch.ruleset >= 0:
            os.close(launch.ruleset)
        libc.prctl(flags.PR_SET_DUMPABLE, 0)
        _watch(agent, lifeline, report)
    finally:
        end_descendants()
        os._exit(0)


def _watch(agent: int, lifeline: int, report: int) -> None:
    """Return when the supervisor is gone or the agent's main program has ended and its tree with it."""
    children = libc.signalfd({signal.SIGCHLD})
    poller = select.poll()
    poller.register(lifeline, select.POLLIN)
    poller.register(children, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if lifeline in ready:
            return
        os.read(children, 128)
        if (status := _reap(agent, report)) is not None:
            for pid in end_descendants():
                _tell(report, LEFT, pid, 0)
            _tell(report, EXITED, status, 0)
            return


def _reap(agent: int, report: int) -> int | None:
    """Collect every waiting child; return the agent's wait status once it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid != agent:
            continue
        if os.WIFSTOPPED(status):
            _tell(report, STOPPED, os.WSTOPSIG(status), 0)
        elif os.WIFCONTINUED(status):
            _tell(report, CONTINUED, 0, 0)
        else:
            return status


def end_descendants() -> list[int]:
    """Kill every descendant of this process and wait until none is left; return those that were still running.

    As a subreaper this process inherits the orphans, so the loop ends only when there is nothing left to inherit.
    """
    ended: list[int] = []
    while True:
        alive = descendants(os.getpid())
        ended += [pid for pid in alive if pid not in ended]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return ended
        # A child of a process that died in mid-scan is found by the next scan; wait for news, not for ever.
        signal.sigtimedwait({signal.SIGCHLD}, 0.005)


def _tell(report: int, letter: bytes, first: int, second: int) -> None:
    try:
        os.write(report, REPORT.pack(letter, first, second))
    except BrokenPipeError:
        return  # the supervisor is gone; its lifeline says so too
