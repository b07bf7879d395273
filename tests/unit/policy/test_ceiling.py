"""Ceilings: nothing is allowed under one that its policy denies, whatever the policy below says."""

import json
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helm_sentry.decision import Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.ceiling import ceilings, within
from helm_sentry.policy.context import Context, Process
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Limits, Policy
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: {}\n"
ALL = "allow:\n  - {id: all, file: {do: [all], paths: ['/**']}}\n"


def policy(text: str, name: str = "test") -> Policy:
    return load(HEAD.format(name) + text, packs={})


def read(path: str) -> Operation:
    return Operation(Kind.FILE_READ, path=path)


def under(own: str, above: str) -> Policy:
    return within(policy(own), ceilings(policy(above, "above"), "parent"))


RANK = [Verdict.DENY, Verdict.ESCALATE, Verdict.ALLOW]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    strategies.policies(), strategies.policies(), strategies.operations(), strategies.contexts(), strategies.contexts()
)
def test_nothing_is_allowed_that_the_ceiling_or_the_policy_denies(above, own, operation, there, here):
    """`there` is what the run above knows, which differs in whatever a run remembers: ancestors more, uses more."""
    here = replace(here, time=there.time, process=replace(here.process, uid=there.process.uid))
    longer = tuple(dict.fromkeys(there.process.ancestry + here.process.ancestry))
    there = replace(there, agent=above.agent, process=Process(here.process.exe, longer, here.process.uid))
    bounded = decide(compile_policy(within(own, ceilings(above, "parent"))), operation, here)
    # Allow rules with a limit that is used up deny: a ceiling has none of them.
    fresh = replace(there, spent=frozenset())
    for context in (there, fresh):
        assert RANK.index(bounded.verdict) <= RANK.index(decide(compile_policy(above), operation, context).verdict)
    assert RANK.index(bounded.verdict) <= RANK.index(decide(compile_policy(own), operation, here).verdict)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.policies(), st.lists(strategies.policies(), max_size=2))
def test_the_loader_reads_ceilings_back(own, above):
    bounded = within(own, tuple(each for one in above for each in ceilings(one, "parent")))
    assert load(json.dumps(bounded.canonical()), "within.json", packs={}) == bounded


def test_a_refusal_names_the_rule_above():
    bounded = compile_policy(under(ALL, ALL + "block:\n  - {id: no, file: {do: [read], paths: [/a]}}\n"))
    assert decide(bounded, read("/b")).allowed
    assert decide(bounded, read("/a")).rule == "parent/no"


def test_what_no_rule_above_allows_is_refused_for_the_ceiling():
    bounded = compile_policy(under(ALL, "allow:\n  - {id: one, file: {do: [read], paths: [/a]}}\n"))
    assert decide(bounded, read("/a")).allowed
    assert decide(bounded, read("/b")).reason is Reason.CEILING


def test_a_ceiling_knows_its_own_agent():
    above = (
        "agent: {role: junior}\ncontextual:\n  - {id: c, file: {do: [read], paths: [/a]}, when: agent.role == 'boss'}\n"
    )
    bounded = compile_policy(under("agent: {role: boss}\n" + ALL, above))
    assert decide(bounded, read("/a"), Context({"role": "boss"})).rule == "parent/c"


def test_a_limit_above_is_not_to_be_had_twice():
    bounded = under(ALL, "allow:\n  - {id: few, file: {do: [read], paths: [/a]}, limit: {count: 3}}\n")
    assert not decide(compile_policy(bounded), read("/a")).allowed


def test_a_ceiling_of_a_ceiling_stays():
    top = ceilings(policy("allow:\n  - {id: one, file: {do: [read], paths: [/a]}}\n", "top"), "parent")
    middle = within(policy(ALL, "middle"), top)
    bottom = compile_policy(within(policy(ALL), ceilings(middle, "parent")))
    assert decide(bottom, read("/a")).allowed
    assert not decide(bottom, read("/b")).allowed


def test_the_least_limits_hold():
    above = ceilings(replace(policy(ALL), limits=Limits(memory=10, processes=5)), "parent")
    assert within(replace(policy(ALL), limits=Limits(memory=20, wall_time=7)), above).limits == Limits(
        memory=10, processes=5, wall_time=7
    )


def test_what_matters_to_a_ceiling_matters_to_the_policy_below():
    when = "contextual:\n  - {id: c, connect: {hosts: [a.example]}, when: 'time.getHours() < 12'}\n"
    own = policy(ALL)
    bounded = within(own, ceilings(policy(when, "above"), "parent"))
    assert compile_policy(own).guarded_kinds == frozenset()
    assert compile_policy(bounded).guarded_kinds == {Kind.NET_CONNECT, Kind.NET_SEND}
    assert [rule.id for rule in bounded.every_rule] == ["all", "parent/c"]
