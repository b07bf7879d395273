"""Policies as ceilings: what a run may do at most because of another policy, whatever its own says. Pure.

A ceiling never allows what its policy would deny in the run it comes from. What a run remembers is not known in
another one, so whatever depends on that is refused: limits and counts begin anew, and ancestors are out of sight.
"""

from dataclasses import fields, replace

from helm_sentry.decision import Verdict
from helm_sentry.policy.condition import compile_condition
from helm_sentry.policy.model import Limits, Policy, Rule

_ELSEWHERE = ("run.", "process.ancestry")


def ceilings(policy: Policy, name: str) -> tuple[Policy, ...]:
    """Return what a policy comes to as ceilings: itself, and those it is under.

    Args:
        policy: an effective policy.
        name: goes in front of rule ids, so that a decision says where the refusal comes from.
    """
    block = tuple(_unconditional(rule) for rule in policy.block)
    # What stays contextual is a refusal, and may name hosts that a block rule may not.
    contextual = tuple(
        replace(_unconditional(rule), when="false") if _remembers(rule) else rule for rule in policy.contextual
    )
    own = replace(
        policy,
        allow=_named(tuple(rule for rule in policy.allow if not rule.limit), name),
        block=_named(block, name),
        contextual=_named(contextual, name),
        within=(),
    )
    return (own, *(each for other in policy.within for each in ceilings(other, name)))


def within(policy: Policy, some: tuple[Policy, ...]) -> Policy:
    """Return a policy under further ceilings, with the least of all resource limits."""
    every = tuple(dict.fromkeys((*policy.within, *some)))
    return replace(policy, within=every, limits=_least(policy.limits, *(each.limits for each in every)))


def _remembers(rule: Rule) -> bool:
    names = compile_condition(rule.when).names if rule.when else ()
    return bool(rule.limit or rule.programs) or any(name.startswith(_ELSEWHERE) for name in names)


def _unconditional(rule: Rule) -> Rule:
    return replace(rule, limit=None, when="", otherwise=Verdict.DENY, programs=())


def _named(rules: tuple[Rule, ...], name: str) -> tuple[Rule, ...]:
    return tuple(replace(rule, id=f"{name}/{rule.id}") for rule in rules)


def _least(*limits: Limits) -> Limits:
    given = {each.name: [getattr(some, each.name) for some in limits] for each in fields(Limits)}
    known = {name: [value for value in values if value is not None] for name, values in given.items()}
    return Limits(**{name: min(values) for name, values in known.items() if values})
