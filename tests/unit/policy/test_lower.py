"""What the kernel can hold of a policy: never more than `decide` allows, and no less."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.lower import BPF_LSM, BROKER, KERNEL, lower
from helm_sentry.policy.model import FILE_KINDS, BindMatch, ConnectMatch, Effect, FileMatch, Policy, Rule
from helm_sentry.policy.reach import covers, may_lead_through, may_match
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: p\n"


def held(rules: str, kind: Kind = Kind.FILE_READ) -> str:
    return lower(load(HEAD + rules), BPF_LSM).held[kind].reason


def plain_policies() -> st.SearchStrategy[Policy]:
    """Policies without what the kernel never holds, so that most kinds of them are lowered."""
    part = st.sampled_from(["a", "b", "ab", ".a"])
    tail = st.sampled_from(["", "", "/**", "/*", "/a*"])
    paths = st.lists(part, min_size=1, max_size=3).flatmap(
        lambda names: tail.map(lambda end: "/" + "/".join(names) + end)
    )
    verbs = st.frozensets(st.sampled_from(sorted(FILE_KINDS.values())), min_size=1, max_size=4)
    files = st.builds(FileMatch, verbs, st.lists(paths, min_size=1, max_size=2).map(tuple))
    networks = st.lists(strategies.networks() | st.just(ip_network("0.0.0.0/0")), min_size=1, max_size=2).map(tuple)
    ports, protocols = strategies.port_ranges(), strategies.protocol_sets()
    connects = st.builds(ConnectMatch, addresses=networks, ports=ports, protocols=protocols)
    matches = files | files | files | connects | st.builds(BindMatch, networks, ports, protocols)

    def named(prefix: str, effect: Effect) -> st.SearchStrategy[tuple[Rule, ...]]:
        return st.lists(matches, max_size=3).map(
            lambda some: tuple(Rule(f"{prefix}/{at}", effect, match) for at, match in enumerate(some))
        )

    return st.builds(
        lambda allow, block: Policy("p", allow=allow, block=block),
        named("a", Effect.ALLOW),
        named("b", Effect.BLOCK),
    )


def operations() -> st.SearchStrategy[Operation]:
    names = st.lists(st.sampled_from(["a", "b", "ab", ".a", "aab"]), max_size=4)
    paths = names.map(lambda some: "/" + "/".join(some)) | strategies.close_paths()
    return st.builds(lambda operation, path: replace(operation, path=path), strategies.operations(), paths)


@given(st.one_of(plain_policies(), strategies.policies()), st.lists(operations(), min_size=1, max_size=20))
def test_the_kernel_allows_what_decide_allows_and_nothing_else(policy: Policy, asked: list[Operation]) -> None:
    lowered, compiled = lower(policy, BPF_LSM), compile_policy(policy)
    for operation in asked:
        if operation.kind in lowered.kinds:
            allowed = decide(compiled, operation).verdict is Verdict.ALLOW
            assert lowered.allows(operation) is allowed, (operation, lowered)
        else:
            assert not lowered.allows(operation)


@given(strategies.patterns(), strategies.close_paths(), st.lists(st.sampled_from(["a", "b", "a.b"]), max_size=2))
def test_a_pattern_that_matches_is_said_to(text: str, path: str, more: list[str]) -> None:
    wanted = pattern.parse(text)
    beneath = "/".join([path.rstrip("/"), *more]) or "/"
    matches = _matches(wanted, beneath)
    if matches:
        assert may_match(wanted, path, prefix=True) and may_lead_through(wanted, path, prefix=True)
        assert beneath != path or may_match(wanted, path, prefix=False)
    if covers(path, True, wanted) and matches:
        assert beneath == path or beneath.startswith(path.rstrip("/") + "/")


def _matches(wanted: pattern.Pattern, path: str) -> bool:
    rule = Rule("a/a", Effect.ALLOW, FileMatch(frozenset({Kind.FILE_READ}), (wanted.text,)))
    return decide(compile_policy(Policy("p", allow=(rule,))), Operation(Kind.FILE_READ, path=path)).rule == "a/a"


READ = "allow: [{id: data, file: {do: [read], paths: ['/data/**', /etc/hosts]}}]\n"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        pytest.param(READ, "", id="paths and directories"),
        pytest.param(READ + "block: [{id: b, file: {do: [read], paths: ['/data/x/**']}}]", "", id="deny inside allow"),
        pytest.param(READ + "block: [{id: b, file: {do: [read], paths: ['/etc/shadow*']}}]", "", id="a glob elsewhere"),
        pytest.param(
            READ + "block: [{id: b, file: {do: [read], paths: ['/data/*.key']}}]",
            "rule `b` blocks `/data/*.key` inside `/data`, which rule `data` allows",
            id="a glob that blocks inside",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: ['/data/*.txt']}}]",
            "rule `a` names `/data/*.txt`, which is neither one path nor a whole directory",
            id="a glob that allows",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: ['/data/*.txt', '/data/**']}}]",
            "",
            id="a glob inside a directory",
        ),
        pytest.param(
            READ + "contextual: [{id: c, file: {do: [read], paths: [/x]}, when: 'true'}]",
            "rule `c` has a condition",
            id="a condition",
        ),
        pytest.param(
            READ + "contextual: [{id: c, exec: {paths: [/x]}, when: 'run.counts.file.read < 3'}]",
            "rule `c` counts such operations before they happen",
            id="a condition about another kind that counts",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: [/x]}, limit: {count: 3}}]", "rule `a` has a limit", id="a limit"
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: [/x]}, programs: [/bin/cat]}]",
            "rule `a` holds for some programs only",
            id="a program",
        ),
    ],
)
def test_why_a_kind_stays_with_the_broker(rules: str, reason: str) -> None:
    assert held(rules) == reason


def test_names_and_own_servers_stay_with_the_broker() -> None:
    rules = "allow: [{id: a, connect: {hosts: [example.com], ports: [443]}}, {id: o, connect: {own: true}}]"
    lowered = lower(load(HEAD + rules), BPF_LSM)
    assert "names hosts" in lowered.held[Kind.NET_CONNECT].reason
    assert "own servers" in lowered.held[Kind.NET_SEND].reason
    assert lowered.held[Kind.NET_BIND].by == KERNEL
    assert lowered.held[Kind.PROCESS_SIGNAL].by == BROKER
