"""What the kernel counts and holds of a run by itself, beside what it asks the supervisor call by call.

What only some runs need is imported where it is used: the others start 7 ms sooner.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from helm_sentry import state
from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker.broker import Broker
from helm_sentry.decision import Decision
from helm_sentry.errors import FeatureError, SentryError
from helm_sentry.operation import Operation
from helm_sentry.policy.engine import CompiledPolicy
from helm_sentry.policy.plan import PTRACE
from helm_sentry.policy.rights import HOOKS
from helm_sentry.prepare import Prepared, require_held

if TYPE_CHECKING:
    from helm_sentry.sensor.holding import Holding
    from helm_sentry.sensor.opens import Opens
    from helm_sentry.sensor.programs import Loaded
    from helm_sentry.sensor.witness import Witness


class Sensors:
    """The witness of a run, and the programs at the kernel's hooks that hold it, where there are any."""

    def __init__(
        self,
        prepared: Prepared,
        run: str,
        log: AuditLog,
        *,
        on_gap: Callable[[str], None],
        on_denial: Callable[[Operation, Decision, bool], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Load the programs that count what the agent does; that there can be none is recorded.

        Args:
            prepared: the run.
            run: its id.
            log: where what the kernel reports is written.
            on_gap: hears that the kernel's count and the log's differ; it is in the log then.
            on_denial: hears what the kernel refused.
            on_failure: ends the run.

        Raises:
            FeatureError: the tier or the policy needs the witness, and there is none.
        """
        self._prepared, self._run, self._log = prepared, run, log
        self._on_gap, self._on_denial, self._on_failure = on_gap, on_denial, on_failure
        self._witness: Witness | None = None
        self._holding: Holding | None = None
        self._gap_found = False
        self._programs = self._load()

    def begin(self, broker: Broker, agent: int, kill: Callable[[], None]) -> None:
        """Count what the agent does, and hold it, from before its first instruction.

        Args:
            broker: decides what the kernel asks about.
            agent: the agent's process id.
            kill: ends the agent.
        """
        self._kill = kill
        if self._programs:
            self._call_witness(self._programs, broker, agent)
        self._hold(agent)

    def enforce(self, policy: CompiledPolicy) -> None:
        """Have the kernel hold another policy of the run.

        Raises:
            PolicyError: what the kernel holds by itself would change, and cannot.
        """
        lowered = require_held(self._prepared.plan, policy.policy)
        if self._holding and lowered:
            self._holding.enforce(lowered, policy.policy)

    def finish(self) -> None:
        """Write what is left to be told, and take the programs away."""
        if self._holding:
            self._holding.finish()
        if self._witness:
            self._witness.finish()

    def require_no_gap(self) -> None:
        """Refuse to call a run good whose policy wants no gap.

        Raises:
            SentryError: there was one.
        """
        if self._gap_found and self._prepared.policy.on_witness_gap == "deny":
            raise SentryError("the run cannot be trusted: the kernel's count of its calls and the log's differ")

    def _load(self) -> "Loaded | None":
        try:
            if self._prepared.plan.tier == PTRACE:
                raise FeatureError("it does not know what a tracer does")
            if not self._prepared.options.witness:
                raise FeatureError("it was switched off")
            if not self._prepared.host.root:  # what would say so takes 4 ms to load
                raise FeatureError("only root may load bpf programs")
            from helm_sentry.sensor import loader

            return loader.load(state.witness_directory(), self._prepared.plan.kernel)
        except FeatureError as error:
            if self._prepared.plan.kernel:
                raise FeatureError(f"the kernel tier has its log from the witness, but {error}") from error
            if self._prepared.policy.on_witness_gap == "deny":
                raise FeatureError(f"the policy asks for a witness (`on_witness_gap: deny`), but {error}") from error
            self._log.append(record.notice("no-witness", str(error)))
            return None

    def _call_witness(self, programs: "Loaded", broker: Broker, agent: int) -> None:
        from helm_sentry.sensor.witness import Books, Witness

        self._witness = Witness(
            programs,
            lambda: Books(*broker.arrived(), broker.tally.execs),
            self._log.append,
            lambda code, detail: self._gap(detail),
            self._on_failure,
            self._opens(broker) if self._prepared.plan.kernel else None,
        )
        self._witness.start(agent)

    def _hold(self, agent: int) -> None:
        lowered = require_held(self._prepared.plan, self._prepared.policy)
        if lowered and lowered.mechanism == HOOKS.name:
            from helm_sentry.sensor.holding import Holding

            place, policy = state.witness_directory(), self._prepared.policy
            self._holding = Holding(self._run, agent, place, lowered, policy, self._log.append, self._on_failure)

    def _opens(self, broker: Broker) -> "Opens":
        """Return what writes the log of opens that the kernel holds by itself."""
        from helm_sentry.sensor.opens import Opens

        names = {number: row.name for number, row in syscalls.table(native()).items() if row.held}

        def on_gap(code: str, detail: str) -> None:
            self._log.append(record.gap(code, detail))
            self._gap(detail)

        return Opens(self._log, names, lambda: broker.rules, self._on_denial, on_gap)

    def _gap(self, detail: str) -> None:
        self._gap_found = True
        self._on_gap(detail)
        if self._prepared.policy.on_witness_gap == "deny":
            self._kill()
