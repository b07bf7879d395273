"""What an agent may ask its own supervisor for: a run below this one, and to be allowed less.

    ${tmp}/sentry      named in the agent's environment as HELM_SENTRY_DOOR

An agent reaches it where its policy lets it connect to that path. Only this run's agents do: their connections are made
by this very process, and nobody else's are. Nothing that can be asked for here gives a right to anybody: a run below is
under this run's policy besides its own, and what was dropped stays dropped.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry import state
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.control.client import ask
from helm_sentry.control.gate import Gate, listen
from helm_sentry.control.host import Host, Start
from helm_sentry.control.live import LivePolicy
from helm_sentry.control.peer import Peer
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.ceiling import ceilings
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.model import Policy

DOOR = "HELM_SENTRY_DOOR"
"""Environment variable with the path."""

MOST_RUNS = 16
"""Runs below one at a time."""

MOST_ABOVE = 4
"""Runs above one."""

_NAME = "sentry"
_LAST_WORK = 3.0  # seconds for the runs below to end
_AGENT = "the agent itself"


@dataclass(frozen=True, slots=True)
class Above:
    """The run whose agent asks.

    Attributes:
        run: its id.
        scratch: its own directory, the variable `tmp`.
        owner: user and group of the agent.
        user: name of the user that runs below have, too.
        key: private key file that they sign with, too.
        depth: how many runs are above it.
    """

    run: str
    scratch: str
    owner: tuple[int, int]
    user: str
    key: str
    depth: int

    @property
    def door(self) -> str:
        """Path of the socket."""
        return os.path.join(self.scratch, _NAME)


class Door:
    """Serves the agents of one run.

    Args:
        above: the run.
        live: its policy.
        append: writes a record.
        on_refusal: called with a sentence about a peer that was turned away.

    Raises:
        SentryError: the socket cannot be made.
    """

    def __init__(
        self,
        above: Above,
        live: LivePolicy,
        append: Callable[[Fields], int],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._above, self._live, self._append = above, live, append
        self._host = Host(self._order, others={"drop": self._drop})
        try:
            directory = os.open(above.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._gate = Gate(listen(directory, _NAME, above.owner), _refuses, self._host.serve, on_refusal)
            finally:
                os.close(directory)
        except OSError as error:
            raise SentryError(f"the agent's door cannot be made: {error.strerror}") from error

    def changed(self, policy: Policy) -> None:
        """Put the runs below under another policy; one that cannot be told is ended."""
        with self._host.starting:
            if not (below := self._host.runs):
                return
            request: Fields = {"do": "under", "policies": list[Json](_texts(policy))}
            for run in below:
                try:
                    list(ask(state.control_directory(), run, request))
                except SentryError:
                    self._host.kill(run)

    def close(self) -> None:
        """End the runs below."""
        self._gate.close()
        for run in self._host.runs:
            with contextlib.suppress(SentryError):  # it is ending already, or has not begun
                list(ask(state.control_directory(), run, {"do": "kill"}))
        self._host.wait(_LAST_WORK)

    def _drop(self, request: Fields) -> Fields:
        return self._live.drop(str(request.get("policy")), _AGENT)

    def _order(self, peer: Peer, request: Fields) -> Start:
        """Make of an agent's request what to start. Nothing it names is looked at before its policy allows it."""
        command, environment, policy = (request.get(name) for name in ("command", "environment", "policy"))
        if not (isinstance(command, list) and command and isinstance(environment, dict) and isinstance(policy, str)):
            raise UsageError("a run has a command, an environment and a policy")
        if self._above.depth >= MOST_ABOVE or len(self._host.runs) >= MOST_RUNS:
            raise UsageError(f"at most {MOST_RUNS} runs below one, and {MOST_ABOVE} above")
        program, effective = str(command[0]), self._live.effective
        operation = Operation(Kind.EXEC, path=os.path.realpath(program), argv=tuple(map(str, command)))
        if not os.path.isabs(program) or not decide(compile_policy(effective), operation).allowed:
            raise UsageError(f"`{program}` may not be executed by the run that starts it")
        run = state.new_run_id()
        self._append(record.notice("sub-agent", f"run {run} was started below this one: {json.dumps(command)}"))
        options: Fields = {"command": command, "user": self._above.user, "key": self._above.key, "witness": False}
        hosted: Fields = {"run": run, "environment": environment, "parent": self._above.run, "policy": policy}
        hosted |= {"within": list[Json](_texts(effective)), "replaces": self._above.scratch}
        hosted["depth"] = self._above.depth + 1
        return Start(run, options | {"quiet": request.get("quiet") is True}, hosted)


def _texts(policy: Policy) -> list[str]:
    return [json.dumps(ceiling.canonical()) for ceiling in ceilings(policy, "above")]


def _refuses(peer: Peer) -> str:
    return "" if peer.pid == os.getpid() else "not an agent of this run"
