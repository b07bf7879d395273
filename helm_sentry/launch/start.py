"""Starting a run's processes: supervisor, guardian, agent; and taking the agent's listener."""

import os
import resource
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from helm_sentry.abi import flags, libc
from helm_sentry.abi.arch import native
from helm_sentry.confine.credentials import Identity
from helm_sentry.errors import LaunchError
from helm_sentry.intercept.injection import Channel, open_channel
from helm_sentry.intercept.notify import Listener
from helm_sentry.launch.child import FAILED, LISTENER, REPORT, STAGES, Launch, close_all_but
from helm_sentry.launch.enclosure import enclose, kill_enclosed
from helm_sentry.launch.guardian import guard

if TYPE_CHECKING:
    from helm_sentry.intercept.tracer import Tracer


@dataclass(slots=True)
class Started:
    """An agent that is confined and then waits for permission to execute its program.

    Attributes:
        guardian: process id of its parent, the root of the agent's tree.
        report: read end of the guardian's pipe, with `REPORT` messages.
        lifeline: write end of the pipe whose closing makes the guardian end the agent.
        acknowledge: write end of the pipe the agent waits on.
        enclosed: one kill(2) reaches the guardian and the agent's whole tree and nobody else.
        channel: to a tracer's agent.
        identity: whose authority the agent has.
        agent: process id of the agent's main program, once `confined` has returned.
        listener: receives the agent's syscalls; also from then on.
    """

    guardian: int
    report: int
    lifeline: int
    acknowledge: int
    enclosed: bool
    channel: Channel | None
    identity: Identity
    agent: int = field(init=False)
    listener: "Listener | Tracer" = field(init=False)

    def confined(self) -> None:
        """Return once the agent is confined.

        Raises:
            LaunchError: it could not be.
        """
        self.agent, self.listener = _take_listener(self.report, self.channel, self.identity)

    def proceed(self) -> None:
        """Let the agent execute its program, as soon as somebody serves the listener."""
        self.listener.ready()
        os.write(self.acknowledge, b"!")
        os.close(self.acknowledge)

    def end(self) -> None:
        """Have the whole tree ended: by the guardian, and at once where one signal can do it."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1
        if self.enclosed:
            kill_enclosed()


def not_confined(code: int, stage: int) -> LaunchError:
    """Return the error for what the child reports with FAILED."""
    return LaunchError(f"the agent could not be confined ({STAGES[stage]}): {os.strerror(code)}")


def start(launch: Launch) -> Started:
    """Fork the guardian and, through it, the agent, which is confined while the caller goes on.

    Must be called before this process starts any thread and before it holds any secret. For a tracer one more process
    is forked, so then it returns once the agent is confined.

    Raises:
        LaunchError: the agent could not be confined.
    """
    libc.prctl(flags.PR_SET_CHILD_SUBREAPER, 1)  # should the guardian be killed, its children become ours
    enclosed = enclose()
    lifeline_read, lifeline_write = os.pipe()
    report_read, report_write = os.pipe()
    acknowledge_read, acknowledge_write = os.pipe()
    channel = None if launch.hidden is None else open_channel(launch.hidden)
    if channel:
        launch = replace(launch, channel=channel.theirs.fileno())
    guardian = os.fork()
    if guardian == 0:
        # A key on a descriptor and programs for the kernel, if we were given any, are the supervisor's alone.
        pipes = lifeline_read, report_write, acknowledge_read
        close_all_but(*pipes, launch.channel, launch.group, launch.caller)
        guard(launch, lifeline_read, report_write, acknowledge_read)
    _raise_descriptor_limit()
    for descriptor in (lifeline_read, report_write, acknowledge_read):
        os.close(descriptor)
    if launch.group >= 0:
        os.close(launch.group)
    started = Started(
        guardian, report_read, lifeline_write, acknowledge_write, enclosed, channel, identity=launch.identity
    )
    if channel:
        started.confined()
    return started


def _raise_descriptor_limit() -> None:
    """Make room for what calls that wait hold open; the agent, forked before, keeps the limit of the caller."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _take_listener(report: int, channel: Channel | None, identity: Identity) -> "tuple[int, Listener | Tracer]":
    message = os.read(report, REPORT.size)
    if len(message) < REPORT.size:
        raise LaunchError("the agent's process ended before it was confined")
    letter, first, second = REPORT.unpack(message)
    if letter == FAILED:
        raise not_confined(first, second)
    if letter != LISTENER:
        raise LaunchError("the agent's process sent something unexpected")
    if channel:
        # Imported here: most runs have a listener, and start 3 ms sooner without it.
        from helm_sentry.intercept.tracer import Tracer
        from helm_sentry.launch.bell import cast

        return first, Tracer(native(), first, cast(identity), channel)
    try:
        pidfd = os.pidfd_open(first)
    except ProcessLookupError:
        raise LaunchError("the agent's process ended before it was confined") from None
    try:
        return first, Listener(libc.pidfd_getfd(pidfd, second))
    except OSError as error:
        raise LaunchError(f"the agent's listener could not be taken: {error.strerror}") from error
    finally:
        os.close(pidfd)
