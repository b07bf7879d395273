"""The programs at the hooks of security modules during a run: who is held, by what, and what they refused."""

import contextlib
import os
import threading
from collections.abc import Callable

from helm_sentry.abi.syscalls import HELD_KINDS
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.operation import Kind
from helm_sentry.policy.lower import Lowered
from helm_sentry.policy.model import KernelMatch, Policy
from helm_sentry.sensor import cgroup, lsm
from helm_sentry.sensor.lsm import Enforcer
from helm_sentry.sensor.lsm_records import Event

_LOOK_EVERY = 0.05  # seconds between looks at the ring buffer: when it is full, everything is denied
_HELD = {str(kind).replace(".", "_").upper() for kind in HELD_KINDS}


class Holding:
    """Holds the processes of one run.

    Args:
        run: its id.
        agent: a process that has not begun yet.
        cache: directory for compiled programs.
        lowered: what the kernel holds of the policy.
        policy: the policy.
        write: appends a record to the log; may raise.
        on_failure: told why this cannot go on.

    Raises:
        FeatureError: this host does not allow it.
    """

    def __init__(
        self,
        run: str,
        agent: int,
        cache: str,
        lowered: Lowered,
        policy: Policy,
        write: Callable[[Fields], object],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._run, self._write, self._on_failure = run, write, on_failure
        _release_the_dead()
        group = cgroup.make(run, agent)
        self._enforcer = Enforcer(lsm.load(cache), os.path.join(lsm.PINS, run))
        self.enforce(lowered, policy)
        self._enforcer.watch(group)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="holding", daemon=True)
        self._thread.start()

    def enforce(self, lowered: Lowered, policy: Policy) -> None:
        """Put another policy in force."""
        self._enforcer.enforce(lowered, carried_out(policy))

    def finish(self) -> None:
        """Let go, when every process of the run has ended."""
        self._stop.set()
        self._thread.join()
        self._drain()
        self._enforcer.close()
        cgroup.remove(self._run)

    def _look(self) -> None:
        try:
            while not self._stop.wait(_LOOK_EVERY):
                self._drain()
        except Exception as error:
            self._on_failure(error)
            raise

    def _drain(self) -> None:
        for event in self._enforcer.events():
            # What was opened is in the log already; anything else that is refused here came past the supervisor.
            if not event.allowed and not any(number.name in _HELD for number, _ in event.opinions):
                self._write(record.notice("kernel-refused", _sentence(event)))


def carried_out(policy: Policy) -> frozenset[Kind]:
    """Return the kinds that the broker decides and the kernel then carries out for the agent itself."""
    named = {kind for rule in policy.grants if isinstance(rule.match, KernelMatch) for kind in rule.match.kinds}
    # A descriptor from the broker can be truncated, which asks nobody.
    return frozenset(named) | {Kind.FILE_TRUNCATE}


def _sentence(event: Event) -> str:
    kinds = " and ".join(number.name.lower() for number, _ in event.opinions)
    target = event.path or event.address or (str(event.target) if event.target else "")
    return f"the kernel refused thread {event.tid} {kinds} {target}".rstrip()


def _release_the_dead() -> None:
    """Take the programs of runs out of the kernel whose supervisors died and whose processes have ended."""
    with contextlib.suppress(FileNotFoundError):
        for run in os.listdir(lsm.PINS):
            if cgroup.remove(run):
                lsm.release(os.path.join(lsm.PINS, run))
