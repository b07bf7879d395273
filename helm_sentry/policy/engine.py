"""The decision. Block over contextual over allow over default deny; the order of rules never matters.

`decide` is pure and total: no clock, no file, no logger, and no exception. The same arguments give the same
decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from helm_sentry.decision import DEFAULT_RULE, Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.compiler import Finders, finders
from helm_sentry.policy.context import Context
from helm_sentry.policy.guard import Guard, is_block
from helm_sentry.policy.match import NONE, NOTHING
from helm_sentry.policy.model import Effect, Policy

_NO_RULE = Decision(Verdict.DENY, Reason.DEFAULT)
_FAILED = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR)
_NOT_WITHIN = Decision(Verdict.DENY, Reason.CEILING)
_RANKS = {Verdict.DENY: 1, Verdict.ESCALATE: 2, Verdict.ALLOW: 3}

NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy in the form that `decide` uses.

    Attributes:
        policy: what it was compiled from.
        finders: for each kind of operation that a plain rule mentions, what finds the rules.
        guards: for each kind, the rules that depend on more than the object; the context matters for these kinds alone.
        allows: the decision for each plain allow rule.
        blocks: the decision for each plain block rule.
        within: its ceilings.
    """

    policy: Policy
    finders: Finders
    guards: Mapping[Kind, tuple[Guard, ...]]
    allows: Mapping[str, Decision]
    blocks: Mapping[str, Decision]
    within: tuple["CompiledPolicy", ...] = ()

    @property
    def asks_for(self) -> frozenset[str]:
        """What its rules want to know besides the operation: names of `condition.VARIABLES`, `programs` and so on."""
        own = frozenset(name for guards in self.guards.values() for guard in guards for name in guard.asks_for)
        return own.union(*(ceiling.asks_for for ceiling in self.within))

    @property
    def guarded_kinds(self) -> frozenset[Kind]:
        """Kinds of operation for which the context matters."""
        return frozenset(self.guards).union(*(ceiling.guarded_kinds for ceiling in self.within))


def compile_policy(policy: Policy) -> CompiledPolicy:
    """Return the policy in the form that `decide` uses.

    Raises:
        ValueError: a path pattern or a condition that the loader would have refused.
    """
    plain = [rule for rule in policy.rules if not rule.guarded]
    guards: dict[Kind, tuple[Guard, ...]] = {}
    for rule in policy.rules:
        if rule.guarded:
            guard = Guard.of(rule)
            guards |= {kind: (*guards.get(kind, ()), guard) for kind in guard.kinds}
    return CompiledPolicy(
        policy=policy,
        finders=finders(plain),
        guards=guards,
        allows={
            rule.id: Decision(Verdict.ALLOW, Reason.RULE, rule.id) for rule in plain if rule.effect is Effect.ALLOW
        },
        blocks={
            rule.id: Decision(Verdict.DENY, Reason.BLOCK, rule.id) for rule in plain if rule.effect is Effect.BLOCK
        },
        within=tuple(compile_policy(ceiling) for ceiling in policy.within),
    )


def decide(policy: CompiledPolicy, operation: Operation, context: Context = NO_CONTEXT) -> Decision:
    """Return the decision for one operation.

    Never raises: an operation that cannot be decided is denied with the reason SUPERVISOR_ERROR.
    """
    try:
        decision = _own(policy, operation, context)
        return _under(policy.within, decision, operation, context) if policy.within else decision
    except Exception:
        return _FAILED


def _own(policy: CompiledPolicy, operation: Operation, context: Context) -> Decision:
    find = policy.finders.get(operation.kind)
    block, allow = find(operation) if find else NOTHING
    if guards := policy.guards.get(operation.kind):
        plain = [policy.blocks[block]] if block is not NONE else []
        plain += [policy.allows[allow]] if allow is not NONE else []
        return _guarded(plain, guards, operation, context)
    if block is not NONE:
        return policy.blocks[block]
    return _NO_RULE if allow is NONE else policy.allows[allow]


def _under(
    ceilings: tuple[CompiledPolicy, ...], decision: Decision, operation: Operation, context: Context
) -> Decision:
    """Return the least of a decision and those of the ceilings, which know their own agent."""
    for ceiling in ceilings:
        if decision.verdict is Verdict.DENY:
            return decision
        other = decide(ceiling, operation, replace(context, agent=ceiling.policy.agent))
        if _RANKS[other.verdict] < _RANKS[decision.verdict]:
            decision = other if other.rule != DEFAULT_RULE else _NOT_WITHIN
    return decision


def _guarded(opinions: list[Decision], guards: tuple[Guard, ...], operation: Operation, context: Context) -> Decision:
    for guard in guards:
        if (opinion := guard.opinion(operation, context)) is not None:
            opinions.append(opinion)
    if not opinions:
        return _NO_RULE
    decision = min(opinions, key=_rank) if len(opinions) > 1 else opinions[0]
    if decision.verdict is Verdict.ALLOW:
        charges = tuple([guard.rule.id for guard in guards if guard.charged(operation, context)])
        if charges:
            return Decision(decision.verdict, decision.reason, decision.rule, charges=charges)
    return decision


def _rank(decision: Decision) -> tuple[int, str]:
    return 0 if is_block(decision) else _RANKS[decision.verdict], decision.rule
