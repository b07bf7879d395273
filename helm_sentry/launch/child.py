"""The last steps before the agent: from a fork of the guardian to a confined program.

Everything that needs a file, a module or memory is prepared before the fork. After the filter is in place this
process makes only calls that the filter lets through, until the exec, which the supervisor decides like any other.
"""

import errno
import os
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry.abi import flags, libc
from helm_sentry.confine import credentials, limits
from helm_sentry.confine.credentials import Identity
from helm_sentry.confine.limits import ResourceLimit
from helm_sentry.intercept.injection import TRIED

_NONSENSE = (1 << 64) - 2
REPORT = struct.Struct("=cii")
"""What the guardian and the child tell the supervisor: a letter and two numbers."""
LISTENER, FAILED, NOT_STARTED = b"L", b"F", b"N"
STAGES = ("limits", "identity", "landlock", "seccomp", "a filter that is there already takes calls before ours")


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything the child needs, prepared by the supervisor.

    Attributes:
        program: absolute path of the program.
        arguments: argument vector, the program's name first.
        directory: where it starts.
        environment: the agent's whole environment.
        identity: whose authority the agent has.
        limits: resource limits.
        group: descriptor of a control group to enter, -1 for none.
        floor: makes the Landlock ruleset and returns its descriptor; None where the host has no Landlock and the user
            accepted that. The guardian calls it, while the supervisor goes on with other things.
        ruleset: descriptor of the Landlock ruleset, once there is one.
        filter: packed seccomp program.
        filter_flags: SECCOMP_FILTER_FLAG_* besides NEW_LISTENER.
        hidden: key of the channel (`intercept.injection`), when a tracer takes the listener's place.
        channel: descriptor of the agent's end, once there is one.
        trials: syscalls that are to be seen to reach the tracer, where another filter may come before ours.
        signal_mask: signals the caller of helm-sentry had blocked.
        caller: descriptor of the connection of who waits for this run, -1 for none. The guardian keeps it as well, so
            that a caller whose supervisor was killed hears of it when the agent has ended.
        act: done instead of executing the program, when given; its number is the exit status.
    """

    program: str
    arguments: tuple[str, ...]
    directory: str
    environment: dict[str, str]
    identity: Identity
    limits: tuple[ResourceLimit, ...]
    floor: Callable[[], int] | None
    filter: bytes
    filter_flags: int
    signal_mask: frozenset[int]
    hidden: int | None = None
    channel: int = -1
    trials: tuple[int, ...] = ()
    act: Callable[[], int] | None = None
    group: int = -1
    caller: int = -1
    ruleset: int = -1


def become_agent(launch: Launch, report: int, acknowledge: int) -> None:
    """Confine the calling process and execute the agent's program. Never returns.

    Args:
        launch: what to become.
        report: pipe to the supervisor; carries the listener's number, or the errno and stage of a failure.
        acknowledge: pipe on which the supervisor says that it has taken the listener.
    """
    status = 125
    stage = 0
    try:
        _restore_signals(launch.signal_mask)
        channel = _keep_channel(launch)
        if launch.group >= 0:
            os.write(launch.group, b"0")
        limits.apply(launch.limits)
        stage = 1
        credentials.assume_in_process(launch.identity)
        os.chdir(launch.directory)
        libc.prctl(flags.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the ids change: changing them clears it
        stage = 2
        if launch.ruleset >= 0:
            libc.landlock_restrict_self(launch.ruleset)
        close_all_but(report, acknowledge, *channel)
        stage = 3
        listener = -1
        if launch.hidden is None:
            listener = libc.seccomp_listener(launch.filter, launch.filter_flags)
        else:
            libc.seccomp_filter(launch.filter)
        os.write(report, REPORT.pack(LISTENER, os.getpid(), listener))
        if os.read(acknowledge, 1) != b"!":
            os._exit(status)  # the supervisor died or refused
        # A copy of the listener kept here would make a dead supervisor look like a slow one.
        os.close(listener) if listener >= 0 else None
        stage = 4
        _require_tracer(launch)
        stage = len(STAGES)
        if launch.act:
            os._exit(launch.act())
        os.execve(launch.program, launch.arguments, launch.environment)
    except OSError as error:
        started = stage == len(STAGES)
        status = 127 if error.errno == errno.ENOENT else 126
        os.write(report, REPORT.pack(NOT_STARTED if started else FAILED, error.errno or 0, stage))
    finally:
        os._exit(status)


def _require_tracer(launch: Launch) -> None:
    """See that calls reach the tracer: a listener of whoever confined us is asked first, and may let the kernel go on.

    The arguments are such that the kernel would refuse. What an outer filter refuses by itself need not reach anybody.

    Raises:
        OSError: EBUSY when one does not.
    """
    for number in launch.trials:
        found = libc.syscall_result(number, *[_NONSENSE] * 5, launch.hidden or 0)
        if found not in (TRIED, -errno.EPERM, -errno.ENOSYS):
            raise OSError(errno.EBUSY, "another filter comes first")


def _keep_channel(launch: Launch) -> tuple[int, ...]:
    """Put the agent's end of the channel where it stays, whatever limit is set afterwards."""
    if launch.hidden is None:
        return ()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = os.dup2(launch.channel, launch.hidden & 0xFFFF_FFFF)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (number,)


def _restore_signals(mask: frozenset[int]) -> None:
    """Give the agent the dispositions a shell would have given it; what the caller ignores stays ignored."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by the interpreter, not by the caller
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def close_all_but(*keep: int) -> None:
    """Close every descriptor above 2 except those kept, of which -1 is none."""
    lowest = 3
    for descriptor in sorted(set(keep) - {-1}):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, 1 << 20)
