"""Asking a run through its control socket."""

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.gate import address
from helm_sentry.control.peer import peer_of
from helm_sentry.errors import SentryError, UsageError

ONE_OF_MANY = 2.0
"""Seconds for one run of many to say something."""

_PATIENCE = 30.0  # seconds for the first answer


class Unreachable(SentryError):
    """Nobody serves the socket, or the run did not let us in, or it stands still."""


class Silent(Unreachable):
    """The run was reached and does not answer: its job is stopped, or it ends just now."""


class Dead(Unreachable):
    """There is a socket, and whoever served it is gone."""


class Runs(Protocol):
    """Runs that can be asked, here or elsewhere."""

    def ask(self, run: str, request: Fields) -> Fields:
        """Send a request to a run and return its answer.

        Raises:
            Unreachable: there is nobody to ask.
            SentryError: it was refused.
        """

    def everywhere(self, request: Fields) -> Iterator[Fields]:
        """Send a request to all runs and return their answers, each with its `run`."""


class LocalRuns:
    """The runs with a control socket in a directory, asked one by one."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def ask(self, run: str, request: Fields) -> Fields:
        """As `Runs.ask`; the run may be named as other commands take it, as `latest`."""
        run = run if state.is_run_id(run) else os.path.basename(state.run_directory(run))
        answers = list(ask(self._directory, run, request))
        return answers[0]

    def everywhere(self, request: Fields) -> Iterator[Fields]:
        """As `Runs.everywhere`; a run that has just ended, or whose job is stopped, answers nothing."""
        for run in live_runs(self._directory):
            try:
                answers = list(ask(self._directory, run, request, patience=ONE_OF_MANY))
            except Unreachable:
                continue
            yield from (answer | {"run": run} for answer in answers)


def live_runs(directory: str) -> list[str]:
    """Return the ids of the runs that have a control socket; one of them may have been killed and left it."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []


def supervisor_of(directory: str, run: str) -> int:
    """Return the process that serves a run, by the kernel's word.

    Raises:
        Unreachable: there is none.
    """
    with _connect(directory, run) as connection:
        return peer_of(connection).pid


@contextlib.contextmanager
def presence(directory: str, run: str) -> Iterator[Callable[[], bool]]:
    """Give what tells, at the cost of a system call, whether a run still goes on; one that was killed does not."""
    try:
        supervisor = os.pidfd_open(supervisor_of(directory, run))
    except (Unreachable, ProcessLookupError):
        yield lambda: False
        return
    poller = select.poll()
    poller.register(supervisor, select.POLLIN)
    try:
        yield lambda: not poller.poll(0)
    finally:
        os.close(supervisor)


def ask(directory: str, run: str, request: Fields, *, patience: float = _PATIENCE) -> Iterator[Fields]:
    """Send a request to a run and return its answers as they come, the closing `ok` left out.

    Args:
        directory: where the control sockets are.
        run: the run's id.
        request: its `do` and what belongs to it.
        patience: seconds for each.

    Raises:
        Unreachable: there is nobody to ask.
        SentryError: the run's own refusal.
    """
    with _connect(directory, run, patience) as connection:
        try:
            with contextlib.suppress(BrokenPipeError):  # it has heard enough, and says why
                connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                for line in answers:
                    fields = json.loads(line)
                    if "error" in fields:
                        raise _refusal(fields)
                    if fields == {"ok": True}:
                        return
                    yield fields
        except OSError as error:
            raise Silent(f"run `{run}` does not answer: {error}") from error
    raise Unreachable(f"run `{run}` ended the conversation; it serves its own user and root, and no agent")


def _connect(directory: str, run: str, patience: float = _PATIENCE) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(patience)
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(address(opened, run))
        finally:
            os.close(opened)
    except OSError as error:
        connection.close()
        if isinstance(error, FileNotFoundError):
            raise Unreachable(f"no run `{run}` goes on") from error
        kind = Dead if isinstance(error, ConnectionRefusedError) else Silent
        raise kind(f"run `{run}` cannot be reached: {error.strerror}; it may have ended") from error
    return connection


def _refusal(fields: Fields) -> SentryError:
    error = UsageError if fields.get("status") == UsageError.exit_status else SentryError
    return error(str(fields["error"]))
