"""Policies side by side: what becomes allowed and what becomes denied, on samples of their rules and on a log. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from helm_sentry.decision import Decision, Reason
from helm_sentry.operation import Operation
from helm_sentry.policy import samples
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.model import Policy, Rule
from helm_sentry.policy.observation import Observation
from helm_sentry.policy.question import context


@dataclass(frozen=True, slots=True)
class Change:
    """An operation that two policies decide differently.

    Attributes:
        operation: the operation.
        before: what the first one decides, or what was decided in a run.
        after: what the second one decides.
        times: how often it was met; 0 for a sample of a rule.
        seq: record in which it was first met, -1 for a sample.
    """

    operation: Operation
    before: Decision
    after: Decision
    times: int = 0
    seq: int = -1


def rule_changes(old: Policy, new: Policy) -> tuple[list[Rule], list[Rule]]:
    """Return the rules that only the new and only the old policy has, whatever they are called."""
    known = {_meaning(rule) for rule in old.rules}
    other = {_meaning(rule) for rule in new.rules}
    added = [rule for rule in new.rules if _meaning(rule) not in known]
    return added, [rule for rule in old.rules if _meaning(rule) not in other]


def differences(old: Policy, new: Policy, log: Iterable[Observation] = ()) -> list[Change]:
    """Return operations that the policies decide differently: those of a log first, then samples of changed rules."""
    before, after = compile_policy(old), compile_policy(new)
    found: dict[tuple[object, ...], Change] = {}
    added, removed = rule_changes(old, new)
    some = [(operation, -1) for rule in (*added, *removed) for operation in samples.operations(rule)]
    for operation, seq in (*_asked(log), *some):
        one = decide(before, operation, context(old))
        other = decide(after, operation, context(new))
        if one.verdict is not other.verdict:
            _count(found, operation, one, other, seq)
    return list(found.values())


def replay(policy: Policy, log: Iterable[Observation]) -> list[Change]:
    """Return the operations of a run that a policy would decide otherwise than the run did."""
    compiled = compile_policy(policy)
    found: dict[tuple[object, ...], Change] = {}
    for observation in log:
        if observation.decision.reason in _BY_POLICY:
            decisions = [decide(compiled, operation, context(policy)) for operation in observation.operations]
            pairs = zip(observation.operations, decisions, strict=True)
            # A call is decided by the first of its operations that is not allowed.
            denied = next((pair for pair in pairs if not pair[1].allowed), None)
            operation, after = denied or (observation.operations[0], decisions[0])
            if after.verdict is not observation.decision.verdict:
                _count(found, operation, observation.decision, after, observation.seq)
    return list(found.values())


_BY_POLICY = frozenset(Reason) - {
    Reason.BUILTIN,
    Reason.KERNEL,
    Reason.UNREADABLE,
    Reason.UNKNOWN_SYSCALL,
    Reason.FOREIGN_ABI,
    Reason.EXEC_MISMATCH,
    Reason.SUPERVISOR_ERROR,
    Reason.RUN_ENDED,
    Reason.NO_POLICY,
    Reason.STALE_POLICY,
}


def _meaning(rule: Rule) -> str:
    given = {key: value for key, value in rule.canonical().items() if key not in ("id", "note")}
    return f"{rule.effect} {given}"


def _asked(log: Iterable[Observation]) -> Iterator[tuple[Operation, int]]:
    for observation in log:
        if observation.decision.reason in _BY_POLICY:
            yield from ((operation, observation.seq) for operation in observation.operations)


def _count(
    found: dict[tuple[object, ...], Change], operation: Operation, before: Decision, after: Decision, seq: int
) -> None:
    key = (operation.kind, operation.target, before.verdict, after.verdict)
    first = found.get(key)
    if first is None:
        found[key] = Change(operation, before, after, int(seq >= 0), seq)
    else:
        found[key] = Change(operation, first.before, first.after, first.times + int(seq >= 0), first.seq)
