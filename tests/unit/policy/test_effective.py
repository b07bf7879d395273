"""Policies that programs write: read sooner, with the same outcome."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.errors import PolicyError
from helm_sentry.policy.effective import load_effective
from helm_sentry.policy.loader import load, load_file
from helm_sentry.policy.model import EFFECTIVE_SCHEMA, Effect
from tests import strategies
from tests.unit.policy.test_loader import RUN


@given(strategies.policies(), strategies.policies(), st.data())
def test_what_is_known_changes_nothing(policy, other, data):
    known = [*other.rules, *(rule for rule in policy.rules if data.draw(st.booleans()))]
    text = json.dumps(policy.canonical(), indent=data.draw(st.sampled_from([None, 1])))
    assert load_effective(text, "x.json") == load_effective(text, "x.json", known) == policy


def test_a_known_rule_is_not_read_again():
    policy = load_file("default", RUN)
    (first, *others) = policy.allow
    changed = replace(policy, allow=(*others, replace(first, id="other")))
    again = load_effective(json.dumps(changed.canonical()), "x.json", policy.rules)
    assert again == changed
    assert [rule is before for rule, before in zip(again.allow, others, strict=False)] == [True] * len(others)


def test_a_known_rule_of_another_effect_is_another_rule():
    policy = load_file("default", RUN)
    moved = replace(policy, allow=(), block=tuple(replace(rule, effect=Effect.BLOCK) for rule in policy.allow))
    again = load_effective(json.dumps(moved.canonical()), "x.json", policy.rules)
    assert {rule.effect for rule in again.rules} == {Effect.BLOCK, *(rule.effect for rule in moved.contextual)}
    assert again == moved


BASE = load_file("default", RUN)
MISTAKES = {
    "a key nobody knows": BASE.canonical() | {"alow": []},
    "no list": BASE.canonical() | {"allow": ""},
    "a table for a list": BASE.canonical() | {"allow": {"id": "x"}},
    "no table": [],
    "another schema": BASE.canonical() | {"schema": "helm-sentry/policy/v0"},
    "no schema": {"name": "x"},
    "an id twice": BASE.canonical() | {"allow": [BASE.allow[0].canonical()] * 2},
    "an id in two lists": BASE.canonical() | {"contextual": [BASE.allow[0].canonical() | {"when": "true"}]},
    "a rule that is none": BASE.canonical() | {"allow": [BASE.allow[0].canonical(), {"id": "x"}]},
    "something invisible": BASE.canonical() | {"name": "x\u200b"},
    "a file": {"schema": "helm-sentry/policy/v1", "name": "x", "extends": ["./x.yaml"]},
    "a pack": {"schema": "helm-sentry/policy/v1", "name": "x", "extends": ["base"]},
    "itself": {"schema": "helm-sentry/policy/v1", "name": "x", "extends": ["x.json"]},
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("known", [(), BASE.rules], ids=["nothing known", "known"])
def test_a_mistake_is_answered_as_ever(name, known):
    text = json.dumps(MISTAKES[name], indent=1)
    with pytest.raises(PolicyError) as expected:
        load(text, "x.json", packs={"x.json": text})
    with pytest.raises(PolicyError) as caught:
        load_effective(text, "x.json", known)
    assert str(caught.value) == str(expected.value)
    assert caught.value.line > 0


@pytest.mark.parametrize("text", ["", "x", "[" * 100_000, " " * (1 << 20) + "{}", '{"allow": [], "allow": []}'])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(PolicyError):
        load_effective(text, "x.json", BASE.rules)


def test_a_policy_that_is_not_effective_is_read_as_such():
    text = json.dumps({"schema": "helm-sentry/policy/v1", "name": "x", "variables": {"a": "/b"}})
    assert load_effective(text, "x.json", BASE.rules).name == "x"
    assert BASE.canonical()["schema"] == EFFECTIVE_SCHEMA
