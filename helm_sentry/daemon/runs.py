"""What became of the runs of a state directory: which go on, which were sealed, and which ended without a seal.

Nothing is kept about this: a run goes on if somebody serves its control socket, and is sealed if it has a receipt.
"""

import contextlib
import os
from enum import StrEnum

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.client import ONE_OF_MANY, Dead, Unreachable, ask, live_runs, supervisor_of
from helm_sentry.receipt.report import SEAL


class Condition(StrEnum):
    """How it stands with a run."""

    RUNNING = "running"
    SEALED = "sealed"
    UNSEALED = "ended without a seal"


def condition(run: str) -> Condition:
    """Return how it stands with a run."""
    try:
        supervisor_of(state.control_directory(), run)
        return Condition.RUNNING
    except Unreachable:
        sealed = os.path.exists(os.path.join(state.runs_directory(), run, SEAL))
        return Condition.SEALED if sealed else Condition.UNSEALED


def known() -> list[str]:
    """Return the ids of all runs there are records of, the oldest first."""
    try:
        return sorted(name for name in os.listdir(state.runs_directory()) if state.is_run_id(name))
    except FileNotFoundError:
        return []


def running() -> list[Fields]:
    """Return what the runs that go on say about themselves; one whose job is stopped says nothing."""
    found = []
    for run in live_runs(state.control_directory()):
        with contextlib.suppress(Unreachable):  # it has just ended, or was killed
            found += list(ask(state.control_directory(), run, {"do": "about"}, patience=ONE_OF_MANY))
    return found


class Supervisors:
    """The processes that serve the runs that go on, by the kernel's word; asked once, as they do not change."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def pids(self) -> set[int]:
        """Return them."""
        current = live_runs(state.control_directory())
        self._known = {run: pid for run, pid in self._known.items() if run in current}
        for run in current:
            if run not in self._known:
                with contextlib.suppress(Unreachable):
                    self._known[run] = supervisor_of(state.control_directory(), run)
        return set(self._known.values())


def clear_remains() -> list[str]:
    """Take away the control sockets of runs whose supervisor died, and return their ids."""
    dead = []
    for run in live_runs(state.control_directory()):
        try:
            supervisor_of(state.control_directory(), run)
        except Dead:
            dead.append(run)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(state.control_directory(), run))
        except Unreachable:
            continue  # it ended in good order just now, or its job is stopped
    return dead
