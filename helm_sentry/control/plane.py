"""The control plane of one run: its questions, its terminal and its control socket."""

import os
from collections.abc import Callable

from helm_sentry import state
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.approvals import Approvals
from helm_sentry.control.badge import Badge
from helm_sentry.control.door import Above, Door
from helm_sentry.control.endpoint import Endpoint
from helm_sentry.control.live import LivePolicy
from helm_sentry.control.service import approval_services, policy_services, run_services
from helm_sentry.control.standing import Standing
from helm_sentry.control.terminal import Terminal
from helm_sentry.errors import AuditError, SentryError
from helm_sentry.policy.model import Policy


class ControlPlane:
    """What a person, or a program of theirs, can do about a run while it goes on.

    Args:
        run: the run's id.
        standing: the answers that were given for good under its policy.
        approve_within: seconds until a question is denied.
        append: writes a record.
        sign: says that a record was written that needs a receipt.
        say: prints a line.
        on_failure: called when something cannot be recorded; the run must end.

    Raises:
        SentryError: standing approvals cannot be read.
    """

    def __init__(
        self,
        run: str,
        standing: Standing,
        approve_within: float,
        append: Callable[[Fields], int],
        sign: Callable[[], None],
        say: Callable[[str], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._run, self._append, self._sign, self._on_failure = run, append, sign, on_failure
        self._terminal = Terminal(run, say)
        self._endpoint: Endpoint | None = None
        self._door: Door | None = None
        self._badge: Badge | None = None
        try:
            self.approvals = Approvals(approve_within, standing, append, self._changed, on_failure)
        except OSError as error:
            raise SentryError(f"standing approvals cannot be read: {error}") from error

    @property
    def asking(self) -> bool:
        """Whether a prompt has the terminal, so that the agent may be stopped on its account."""
        return self._terminal.asking

    def open(
        self,
        guardian: int,
        live: LivePolicy,
        kill: Callable[[], None],
        facts: Callable[[], Fields],
        above: Above | None,
    ) -> None:
        """Begin to serve.

        Args:
            guardian: process that all of the agent descends from.
            live: the run's policy.
            kill: ends the agent.
            facts: tells what else there is to know about the run.
            above: what runs below this one have of it; None if there can be none.

        Raises:
            SentryError: there can be no control socket.
        """

        def about() -> Fields:
            own: Fields = {"run": self._run, "supervisor": os.getpid(), "waiting": len(self.approvals.waiting())}
            return own | live.summary() | facts()

        self._badge = Badge()
        services = approval_services(self.approvals) | policy_services(live)
        services |= run_services(kill, self._append, about)
        try:
            self._endpoint = Endpoint(state.control_directory(), self._run, guardian, services, self._turned_away)
        except OSError as error:
            raise SentryError(f"the control socket cannot be made: {error}") from error
        self._door = Door(above, live, self._append, self._turned_away) if above else None
        self._terminal.start(self.approvals, guardian)

    def policy_changed(self, policy: Policy) -> None:
        """Put the runs below under another policy."""
        if self._door:
            self._door.changed(policy)

    def end_below(self) -> None:
        """End the runs that the agent has started."""
        if self._door:
            self._door.close()

    def close(self) -> None:
        """Serve no more."""
        if self._endpoint:
            self._endpoint.close()
        if self._badge:
            self._badge.close()

    def _changed(self) -> None:
        self._sign()
        self._terminal.changed()

    def _turned_away(self, who: str) -> None:
        try:
            self._append(record.notice("control-refused", who))
        except AuditError as error:
            self._on_failure(error)
