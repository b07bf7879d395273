"""The published schema and the loader agree about what a policy looks like."""

import json

import jsonschema
import pytest
import yaml

from helm_sentry.policy import rules
from helm_sentry.policy.loader import _KEYS, shipped_packs
from helm_sentry.policy.schema import DIALECT, FILE_VERBS, json_schema
from tests.unit.policy.test_golden import ERRORS, RULES

VALIDATOR = jsonschema.Draft202012Validator(json_schema())

# Mistakes that no schema can see: names that must be known elsewhere, texts that mean nothing, values that do not fit.
SEEN = ("unknown key", "unknown verb", "unknown protocol", "unknown outcome", "unknown socket", "unknown kernel")


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == DIALECT
    json.dumps(json_schema(), allow_nan=False)


@pytest.mark.parametrize("name", list(shipped_packs()))
def test_shipped_packs_fit(name):
    VALIDATOR.validate(yaml.safe_load(shipped_packs()[name]))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules_that_load_fit(path):
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "path",
    [path for path in ERRORS if path.name.startswith(tuple(word.replace(" ", "-") for word in SEEN))],
    ids=lambda path: path.stem,
)
def test_mistakes_in_words_do_not_fit(path):
    assert not VALIDATOR.is_valid(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{schema: helm-sentry/policy/v1}", id="no name"),
        pytest.param("{schema: v2, name: a}", id="another schema"),
        pytest.param("{schema: helm-sentry/policy/v1, name: a, allow: [{id: b}]}", id="a rule that matches nothing"),
        pytest.param(
            "{schema: helm-sentry/policy/v1, name: a, contextual: [{id: b, kernel: [bpf]}]}", id="no condition"
        ),
        pytest.param("{schema: helm-sentry/policy/v1, name: a, allow: [{id: b, connect: {ports: [1]}}]}", id="nowhere"),
        pytest.param("{schema: helm-sentry/policy/v1, name: a, limits: {memory: 2}}", id="no unit"),
    ],
)
def test_other_mistakes_do_not_fit(text):
    assert not VALIDATOR.is_valid(yaml.safe_load(text))


def test_schema_and_loader_know_the_same_keys():
    schema = json_schema()
    assert list(schema["properties"]) == list(_KEYS)
    known = schema["$defs"]["contextual"]["properties"].keys()
    assert known == {"id", "note", "programs", "limit", *rules.MATCHERS, *rules.CONDITIONAL}
    assert schema["$defs"]["limits"]["properties"].keys() == rules._LIMITS.keys()
    assert set(schema["$defs"]["file"]["properties"]["do"]["anyOf"][0]["enum"]) == set(FILE_VERBS)


def test_every_key_says_what_it_is_for():
    def tables(node):
        if isinstance(node, dict):
            yield from node.get("properties", {}).items()
            for value in node.values():
                yield from tables(value)

    described = list(tables(json_schema()))
    assert len(described) > 40
    assert [name for name, value in described if not value.get("description")] == []


def test_the_schema_needs_no_network():
    assert "http" not in json.dumps({k: v for k, v in json_schema().items() if k != "$schema"})
