"""What the kernel can hold of a policy: never more than `decide` allows, and no less."""

from ipaddress import ip_network
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.lower import BPF_LSM, BROKER, KERNEL, NameRule, lower
from helm_sentry.policy.model import BindMatch, ConnectMatch, Effect, FileMatch, Policy, Rule
from helm_sentry.policy.reach import covers, may_lead_through, may_match
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: p\n"


def held(rules: str, kind: Kind = Kind.FILE_READ) -> str:
    return lower(load(HEAD + rules), BPF_LSM).held[kind].reason


_NAMES = ("a", "b", "ab")
_PATHS = ["/" + "/".join(names) for depth in range(4) for names in product(_NAMES, repeat=depth)]
_VERBS = (Kind.FILE_READ, Kind.FILE_CREATE, Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_WRITE)
ASKED = [
    Operation(kind, path=path, directory=directory)
    for kind in (*_VERBS, Kind.FILE_TRUNCATE, Kind.FILE_LINK)
    for path in _PATHS
    for directory in (False, True)
] + [
    Operation(kind, address=address, port=port, protocol=protocol)
    for kind in (Kind.NET_CONNECT, Kind.NET_BIND, Kind.NET_SEND)
    for address in ("0.0.0.0", "127.0.0.1", "10.1.2.3", "::", "::1")
    for port in (0, 80, 443, 65535)
    for protocol in ("tcp", "udp")
]


def policies() -> st.SearchStrategy[Policy]:
    """Policies over few names, without what the kernel never holds, so that most kinds are lowered and rules meet."""
    tail = st.sampled_from(["", "", "", "/**", "/**", "/**", "/**", "/*", "/a*", "/*/b"])
    names = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3)
    paths = st.builds(lambda some, end: "/" + "/".join(some) + end, names, tail)
    verbs = st.frozensets(st.sampled_from(_VERBS), min_size=1)
    files = st.builds(FileMatch, verbs, st.lists(paths, min_size=1, max_size=2).map(tuple))
    known = ("0.0.0.0/0", "10.0.0.0/8", "127.0.0.1/32", "::1/128", "::/0")
    networks = st.sampled_from(known).map(lambda text: (ip_network(text),))
    ports = st.sampled_from([((0, 65535),), ((80, 80), (443, 443)), ((1, 1024),)])
    protocols = strategies.protocol_sets()
    connects = st.builds(ConnectMatch, addresses=networks, ports=ports, protocols=protocols)
    matches = st.one_of(files, files, files, files, connects, st.builds(BindMatch, networks, ports, protocols))

    def named(prefix: str, effect: Effect) -> st.SearchStrategy[tuple[Rule, ...]]:
        return st.lists(matches, min_size=1, max_size=3).map(
            lambda some: tuple(Rule(f"{prefix}/{at}", effect, match) for at, match in enumerate(some))
        )

    return st.builds(
        lambda allow, block: Policy("p", allow=allow, block=block),
        named("a", Effect.ALLOW),
        named("b", Effect.BLOCK),
    )


@settings(max_examples=200, deadline=None)
@given(policies())
def test_the_kernel_allows_what_decide_allows_and_nothing_else(policy: Policy) -> None:
    check(policy, ASKED)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies(), st.lists(strategies.operations(), min_size=3, max_size=8))
def test_the_same_for_policies_of_every_form(policy: Policy, asked: list[Operation]) -> None:
    check(policy, asked)


def check(policy: Policy, asked: list[Operation]) -> None:
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


def test_a_glob_keeps_the_making_of_directories_it_leads_through() -> None:
    rules = (
        "allow: [{id: a, file: {do: [create], paths: ['/d/**']}}]\nblock: [{id: b, file: {do: [read], paths: ['%s']}}]"
    )
    reason = "rule `b` blocks `/d/*/k` inside `/d`, which rule `a` allows"
    assert held(rules % "/d/*/k", Kind.FILE_CREATE) == reason
    assert held(rules % "/e/*/k", Kind.FILE_CREATE) == ""


def test_a_name_rule_is_for_one_name_or_for_all() -> None:
    kinds = frozenset({Kind.NET_SOCKET})
    for name, other in (("inet", False), ("", True)):
        rule = NameRule(kinds=kinds, name=name, verdict=Verdict.ALLOW, rule="r")
        assert rule.matches(Operation(Kind.NET_SOCKET, name="inet"))
        assert rule.matches(Operation(Kind.NET_SOCKET, name="netlink")) is other
        assert not rule.matches(Operation(Kind.KERNEL_BPF, name="inet"))


@pytest.mark.parametrize(
    ("path", "prefix", "may"),
    [
        ("/a/x/cd", False, True),
        ("/a/x/d", True, False),
        ("/a/x", False, False),
        ("/a/x", True, True),
        ("/a/x/cd/e", True, False),
        ("/b/x/cd", True, False),
        ("/", True, True),
    ],
)
def test_how_far_a_pattern_reaches_name_by_name(path: str, prefix: bool, may: bool) -> None:
    assert may_match(pattern.parse("/a/*/c*"), path, prefix) is may
