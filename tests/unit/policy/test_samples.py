"""Samples of rules are what the rules are about."""

import pytest
from hypothesis import given

from helm_sentry.operation import Kind
from helm_sentry.policy import pattern, samples
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.match import PathIndex
from helm_sentry.policy.model import Effect
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: p\nallow:\n"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("/a/b", ("/a/b",)),
        ("/a/**", ("/a", "/a/sample7q/sample7q.x")),
        ("/a/*.c", ("/a/sample7q.c",)),
        ("/a/?[bc][!q]\\*", ("/a/qbz*",)),
        ("/\\x41\\xff[!qzjx7]", ("/A\udcff_",)),
        ("/", ("/",)),
    ],
)
def test_paths(text: str, paths: tuple[str, ...]) -> None:
    assert samples.paths(text) == paths


@pytest.mark.parametrize(
    "rule",
    [
        "file: {do: [all], paths: ['/a/**', '/b/*.c']}",
        "exec: {paths: [/usr/bin/git]}",
        "connect: {hosts: [c.d, a.b], addresses: [10.0.0.0/8], ports: [1-9], own: true}",
        "bind: {addresses: [loopback], ports: [any]}",
        "unix: {do: [connect, bind], paths: [/run/x]}",
        "socket: {families: [netlink]}",
        "kernel: [memfd, mount]",
    ],
)
def test_a_rule_allows_its_samples(rule: str) -> None:
    policy = load(HEAD + f"  - {{id: a, {rule}}}\n")
    some = list(samples.operations(policy.allow[0]))
    assert some
    compiled = compile_policy(policy)
    assert {decide(compiled, operation).rule for operation in some} == {"a"}
    assert all(operation.directory for operation in some if operation.kind is Kind.FILE_RENAME)


@given(strategies.patterns())
def test_a_pattern_matches_its_samples(text: str) -> None:
    index = PathIndex()
    index.add(pattern.parse(text), Effect.ALLOW, "rule")
    assert all(index.find_path(path)[1] == "rule" for path in samples.paths(text))
