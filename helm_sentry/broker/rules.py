"""The rules a run is under at a moment: one value, replaced whole by a live policy."""

from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry.broker.circumstances import Answered, Circumstances, unanswered
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Operation
from helm_sentry.policy.context import Context
from helm_sentry.policy.engine import CompiledPolicy, decide
from helm_sentry.policy.uniform import Uniform

_FAILED = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR)
_ORDER = (Verdict.DENY, Verdict.ESCALATE, Verdict.ALLOW)


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy, with what its rules ask for and have used up.

    Attributes:
        policy: the policy.
        context: what holds for the whole run.
        circumstances: what rules ask for besides the operation.
        uniform: where the policy decides all paths alike.
        epoch: how many policies the run had before this one.
    """

    policy: CompiledPolicy
    context: Context
    circumstances: Circumstances
    uniform: Uniform
    epoch: int = 0

    @classmethod
    def of(cls, policy: CompiledPolicy, bytes_sent: Callable[[], int]) -> "Rules":
        """Return the rules a run begins with."""
        agent = policy.policy.agent
        return cls(policy, Context(agent), Circumstances(policy, agent, bytes_sent), Uniform(policy))

    def succeeded_by(self, policy: CompiledPolicy, epoch: int) -> "Rules":
        """Return the rules that come after these; limits that were used up stay so.

        Raises:
            ValueError: a rule asks for what has not been counted or followed since the run began.
        """
        agent = policy.policy.agent
        circumstances = self.circumstances.succeeded_by(policy, agent)
        return Rules(policy, Context(agent), circumstances, Uniform(policy), epoch)

    def decide(
        self, operations: tuple[Operation, ...], tid: int, *, use: bool = False, answered: Answered = unanswered
    ) -> Decision:
        """Return the first denial, or else the first decision that asks for approval, or else the first one.

        Args:
            operations: all operations of one syscall.
            tid: thread that asks.
            use: they will be carried out if all are allowed, so the limits of rules are used up.
            answered: what becomes of a decision that asks for approval.
        """
        if self.circumstances.concern(operations):
            return min(self.circumstances.decide(operations, tid, use=use, answered=answered), key=_severity)
        first: Decision | None = None
        for operation in operations:
            decision = decide(self.policy, operation, self.context)
            if decision.verdict is not Verdict.ALLOW:
                return decision
            first = first or decision
        return first or _FAILED


def _severity(decision: Decision) -> int:
    return _ORDER.index(decision.verdict)
