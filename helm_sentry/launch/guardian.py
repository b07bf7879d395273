"""The guardian: the agent's parent, which outlives a killed supervisor just long enough to end the agent.

It is a subreaper, so whatever the agent leaves behind becomes its child and cannot escape by daemonising. It watches
a pipe whose other end only the supervisor holds; when that closes, or when the agent's main program ends, it kills
every descendant until none is left. It decides nothing and holds no descriptor the agent could want: its pipes, and the
connection of whoever waits for the run.
"""

import contextlib
import os
import select
import signal
from dataclasses import replace

from helm_sentry.abi import flags, libc
from helm_sentry.intercept.process_tree import descendants
from helm_sentry.launch.child import FAILED, REPORT, STAGES, Launch, become_agent
from helm_sentry.launch.enclosure import enclose, kill_enclosed

STOPPED, CONTINUED, EXITED, LEFT = b"S", b"C", b"X", b"D"
_PAUSE = 0.005  # seconds between looks at processes that take their time to die
_MOST_REAPED = 64
_PRIORITY = -20  # it sleeps until the end, and then nothing is more urgent


def guard(launch: Launch, lifeline: int, report: int, acknowledge: int) -> None:
    """Start the agent, watch it and the supervisor, end the whole tree. Never returns.

    Args:
        launch: the agent to start.
        lifeline: read end of a pipe that closes when the supervisor dies.
        report: pipe to the supervisor: stops, continuations, exit status, processes left behind.
        acknowledge: handed to the child.
    """
    enclosed = False
    try:
        libc.prctl(flags.PR_SET_CHILD_SUBREAPER, 1)
        # Nothing but SIGKILL and SIGSTOP may disturb it; SIGCHLD is read from a descriptor.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        enclosed = enclose()
        launch = _with_floor(launch, report)
        agent = os.fork()
        if agent == 0:
            become_agent(launch, report, acknowledge)
        _step_aside()
        os.close(acknowledge)
        for descriptor in (launch.ruleset, launch.channel, launch.group):
            os.close(descriptor) if descriptor >= 0 else None
        libc.prctl(flags.PR_SET_DUMPABLE, 0)
        _watch(agent, lifeline, report, enclosed)
    finally:
        _end_tree(enclosed)
        os._exit(0)


def _with_floor(launch: Launch, report: int) -> Launch:
    if launch.floor is None:
        return launch
    try:
        return replace(launch, ruleset=launch.floor())
    except OSError as error:
        _tell(report, FAILED, error.errno or 0, STAGES.index("landlock"))
        raise


def _step_aside() -> None:
    """Leave the job, and be ready to run when it is full of processes.

    `kill -9` of the whole job reaches the supervisor and must not reach both. And the kernel shares processor time out
    by session first: in the supervisor's it would have to wait for every process that took a session of its own.
    """
    os.setsid()
    with contextlib.suppress(OSError):  # an ordinary user's guardian competes like any session
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(_PRIORITY))


def _end_tree(enclosed: bool) -> None:
    if enclosed:
        kill_enclosed()
    end_descendants()


def _watch(agent: int, lifeline: int, report: int, enclosed: bool) -> None:
    """Return when the supervisor is gone or the agent's main program has ended and its tree with it."""
    children = libc.signalfd({signal.SIGCHLD})
    poller = select.poll()
    poller.register(lifeline, select.POLLIN)
    poller.register(children, select.POLLIN)
    more = False
    while True:
        ready = {descriptor for descriptor, _ in poller.poll(0 if more else None)}
        if lifeline in ready:
            return
        if children in ready:
            os.read(children, 128)
        status, more = _reap(agent, report)
        if status is not None:
            left = descendants(os.getpid()) if _has_children() else []
            _end_tree(enclosed)
            for pid in left:
                _tell(report, LEFT, pid, 0)
            _tell(report, EXITED, status, 0)
            return


def _reap(agent: int, report: int) -> tuple[int | None, bool]:
    """Collect children that wait, not all at once: orphans without end must not hide the supervisor's death.

    Returns:
        The agent's wait status once it has ended, and whether more may be waiting.
    """
    for _ in range(_MOST_REAPED):
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return None, False
        if pid == 0:
            return None, False
        if pid != agent:
            continue
        if os.WIFSTOPPED(status):
            _tell(report, STOPPED, os.WSTOPSIG(status), 0)
        elif os.WIFCONTINUED(status):
            _tell(report, CONTINUED, 0, 0)
        else:
            return status, False
    return None, True


def end_descendants() -> None:
    """Kill every descendant of this process and wait until none is left.

    As a subreaper this process inherits the orphans, so there is something to wait for until all are gone.
    """
    killed: set[int] = set()
    while _reap_dead():
        alive = set(descendants(os.getpid()))
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if alive <= killed:  # who was born in mid-scan is found by the next one; only the dying are waited for
            signal.sigtimedwait({signal.SIGCHLD}, _PAUSE)
        killed |= alive


def _has_children() -> bool:
    """Whether anybody is left: orphans become this process's own, so without a child there is no descendant."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap_dead() -> bool:
    """Collect the children that have ended; False when there are no children at all."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _tell(report: int, letter: bytes, first: int, second: int) -> None:
    try:
        os.write(report, REPORT.pack(letter, first, second))
    except BrokenPipeError:
        return  # the supervisor is gone; its lifeline says so too
