"""The daemon, from its start to its end.

    <state>/daemon/runs      `helm-sentry run` hands its work over here (control/host.py)
    <state>/daemon/grpc      the service of rpc/sentry.proto
    <state>/daemon/metrics   Prometheus

It decides nothing: every run has a supervisor process of its own, so the end of one is the end of one agent. A daemon
that dies frees no agent, and the next one finds them.
"""

import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import partial

from helm_sentry import state
from helm_sentry.abi import flags, libc
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.client import ask, live_runs
from helm_sentry.control.gate import Gate, listen, private_directory, stranger
from helm_sentry.control.host import Host, Start
from helm_sentry.control.peer import Peer
from helm_sentry.daemon import runs, service_manager
from helm_sentry.daemon.cgroup import Groups
from helm_sentry.daemon.journal import JOURNAL, Journal
from helm_sentry.daemon.metrics import Metrics
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.options import Options
from helm_sentry.rpc.callers import EVERYBODY, Callers
from helm_sentry.rpc.server import Server, Tls

_LAST_WORK = 10.0  # seconds for runs to end when the daemon does
_KNOWN = {option.name for option in fields(Options)} - {"probe", "hosted"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a daemon is told.

    Attributes:
        journal: send what was not allowed to systemd-journald.
        tls: a TCP address for callers with a certificate.
        callers: reads the list of who may do what over gRPC; again upon SIGHUP.
    """

    journal: bool = False
    tls: Tls | None = None
    callers: Callable[[], Callers] = lambda: EVERYBODY


class Daemon:
    """Serves until it is told to end.

    Args:
        settings: what it is told.

    Raises:
        SentryError: there is one already, or a socket cannot be made.
    """

    def __init__(self, settings: Settings) -> None:
        libc.prctl(flags.PR_SET_DUMPABLE, 0)  # what only this process can reach is reached through no /proc entry
        self._inherited = service_manager.inherited()
        try:
            self._directory = private_directory(state.daemon_directory())
            self._lock = os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SentryError(f"a daemon serves `{state.state_directory()}` already") from None
        except OSError as error:
            raise SentryError(f"`{state.daemon_directory()}` cannot be used: {error.strerror}") from error
        self._groups, self._metrics, self._supervisors = Groups(), Metrics(), runs.Supervisors()
        self._journal = self._open_journal() if settings.journal else None
        self._host = Host(self._order, self._ended)
        self._read_callers, self._callers = settings.callers, settings.callers()
        self._server = Server(self._directory, settings.tls, lambda: self._callers)
        self._report_remains()
        self._groups.sweep(live_runs(state.control_directory()))  # before a run can begin in one
        if going := runs.running():
            say(f"found runs that go on: {', '.join(str(about['run']) for about in going)}")
        self._gates = {
            name: Gate(self._listener(name), partial(self._refuses, users), serve, self._turned_away)
            for name, serve, users in (
                ("grpc", self._server.serve, lambda: self._callers.users),
                ("runs", self._host.serve, frozenset),
                ("metrics", self._metrics.serve, frozenset),
            )
        }

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT; then end the runs it hosts. SIGHUP has the list of callers read again."""
        heard = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        patience = service_manager.patience()
        service_manager.tell(READY=1, STATUS="serving")
        say(f"serving {state.state_directory()}")
        while (told := signal.sigtimedwait(heard, patience or 3600)) is None or told.si_signo == signal.SIGHUP:
            service_manager.tell(WATCHDOG=1)
            if told:
                self._reload()
        service_manager.tell(STOPPING=1)
        self._end()

    def _reload(self) -> None:
        try:
            self._callers = self._read_callers()
        except SentryError as error:
            say(f"the list of callers stays as it was: {error}")
        else:
            say("the list of callers was read again")

    def _ended(self, run: str) -> None:
        """Take away what a hosted run has left, which is more if its supervisor was killed."""
        self._groups.end(run)
        self._report_remains()

    def _end(self) -> None:
        for name, gate in self._gates.items():
            gate.close()
            if name not in self._inherited:
                os.unlink(name, dir_fd=self._directory)
        for run in self._host.runs:
            with contextlib.suppress(SentryError):  # it is ending already, or has not begun
                list(ask(state.control_directory(), run, {"do": "kill"}))
        if not self._host.wait(_LAST_WORK):
            say("some runs did not end; they are left to the service manager")
        self._server.stop()

    def _listener(self, name: str) -> socket.socket:
        if name in self._inherited:
            return self._inherited[name]
        try:
            return listen(self._directory, name)
        except OSError as error:
            raise SentryError(f"the socket `{name}` cannot be made: {error.strerror}") from error

    def _open_journal(self) -> Journal:
        try:
            return Journal()
        except OSError as error:
            raise SentryError(f"`{JOURNAL}` cannot be reached: {error.strerror}") from error

    def _report_remains(self) -> None:
        for run in runs.clear_remains():
            self._metrics.unsealed += 1
            say(f"run {run} {runs.condition(run)}; its agent was ended with its supervisor")

    def _refuses(self, users: Callable[[], Collection[int]], peer: Peer) -> str:
        return stranger(peer, self._supervisors.pids(), users())

    def _turned_away(self, who: str) -> None:
        self._metrics.turned_away += 1
        say(f"turned away: {who}")

    def _order(self, peer: Peer, request: Fields) -> Start:
        """Make of a caller's request what to start."""
        options, environment, umask = request.get("options"), request.get("environment"), request.get("umask")
        if not (isinstance(options, dict) and options.keys() <= _KNOWN and isinstance(umask, int)):
            raise UsageError("a run has options and a mask")
        if not isinstance(environment, dict):
            raise UsageError("a run has an environment")
        run = state.new_run_id()
        hosted: Fields = {"run": run, "environment": environment, "cgroup": self._groups.make(run)}
        return Start(run, options, hosted, umask, request.get("detach") is not True)


def say(text: str) -> None:
    """Print a line for whoever reads the daemon's own log."""
    print(f"helm-sentry daemon: {text}", file=sys.stderr, flush=True)
