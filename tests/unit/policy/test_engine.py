"""The decision: precedence, what rules imply, and that it never fails open."""

import os
import random
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.context import Context
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Effect, FileMatch, Policy, Rule, UnixMatch
from tests import strategies
from tests.unit.policy import naive

HEAD = "schema: helm-sentry/policy/v1\nname: test\n"


def compiled(text: str) -> CompiledPolicy:
    return compile_policy(load(HEAD + text, packs={}))


def answer(text: str, operation: Operation) -> tuple[Verdict, str]:
    decision = decide(compiled(text), operation)
    return decision.verdict, decision.rule


def on(kind: str, path: str, **fields: object) -> Operation:
    return Operation(Kind(kind), path=path, **fields)


ALLOW_ALL = "allow:\n  - {id: all, file: {do: [all, mknod], paths: ['/**']}}\n"


@pytest.mark.parametrize("kind", list(Kind))
def test_empty_policy_denies(kind):
    operation = Operation(kind, path="/a", address="10.0.0.1", port=1, protocol="tcp")
    assert decide(compiled(""), operation) == Decision(Verdict.DENY, Reason.DEFAULT, "default")


def test_block_wins_over_allow_wherever_it_stands():
    block = "block:\n  - {id: zz, file: {do: [write], paths: [/etc/passwd]}}\n"
    for text in (block + ALLOW_ALL, ALLOW_ALL + block):
        decision = decide(compiled(text), on("file.write", "/etc/passwd"))
        assert decision == Decision(Verdict.DENY, Reason.BLOCK, "zz")
        assert decide(compiled(text), on("file.write", "/etc/group")).reason is Reason.RULE


def test_smallest_id_is_reported():
    paths = {"c": "/a/**", "a": "/**", "b": "/a/*"}
    text = "allow:\n" + "".join(
        f"  - {{id: {id}, file: {{do: [read], paths: ['{path}']}}}}\n" for id, path in paths.items()
    )
    assert answer(text, on("file.read", "/a/b")) == (Verdict.ALLOW, "a")
    assert answer(text, on("file.read", "/b")) == (Verdict.ALLOW, "a")


@pytest.mark.parametrize(
    ("rule", "operation", "allowed"),
    [
        ("file: {do: [read], paths: [/a/b]}", on("file.stat", "/a/b"), True),
        ("file: {do: [read], paths: [/a/b]}", on("file.stat", "/a"), True),
        ("file: {do: [read], paths: [/a/b]}", on("file.stat", "/"), True),
        ("file: {do: [read], paths: [/a/b]}", on("file.stat", "/a/c"), False),
        ("file: {do: [read], paths: [/a/b]}", on("file.stat", "/a/b/c"), False),
        ("file: {do: [create], paths: ['/a/**']}", on("file.stat", "/a/x/y"), True),
        ("file: {do: [read], paths: ['/a/b/*.txt']}", on("file.stat", "/a/b"), True),
        ("file: {do: [read], paths: ['/a/b/*.txt']}", on("file.stat", "/a/b/c.gz"), False),
        ("exec: {paths: [/usr/bin/git]}", on("file.stat", "/usr/bin/git"), True),
        ("exec: {paths: [/usr/bin/git]}", on("file.stat", "/usr/bin"), True),
        ("exec: {paths: [/usr/bin/git]}", on("file.read", "/usr/bin/git"), False),
        ("unix: {do: [connect], paths: [/run/s]}", on("file.stat", "/run/s"), True),
        ("unix: {do: [connect], paths: [/run/s]}", on("unix.bind", "/run/s"), False),
        ("file: {do: [write], paths: [/a]}", on("file.truncate", "/a"), True),
        ("file: {do: [truncate], paths: [/a]}", on("file.write", "/a"), False),
        ("file: {do: [read], paths: [/a]}", on("file.list", "/a"), False),
        ("file: {do: [all], paths: [/a]}", on("file.mknod", "/a"), False),
        ("file: {do: [all, mknod], paths: [/a]}", on("file.mknod", "/a"), True),
        ("file: {do: [all], paths: ['/**']}", on("exec", "/a"), False),
        ("kernel: [memfd]", Operation(Kind.KERNEL_MEMFD, name="memfd_create"), True),
        ("kernel: [memfd]", Operation(Kind.KERNEL_IPC, name="shmget"), False),
        ("socket: {families: [netlink]}", Operation(Kind.NET_SOCKET, name="netlink"), True),
        ("socket: {families: [netlink]}", Operation(Kind.NET_SOCKET, name="packet"), False),
    ],
)
def test_what_an_allow_rule_implies(rule, operation, allowed):
    assert decide(compiled(f"allow:\n  - {{id: it, {rule}}}\n"), operation).allowed is allowed


@pytest.mark.parametrize(
    ("verbs", "operation", "blocked"),
    [
        pytest.param("[read]", on("file.read", "/w/key"), True, id="named"),
        pytest.param("[read]", on("file.write", "/w/key"), False, id="not named"),
        pytest.param("[read]", on("file.stat", "/w/key"), False, id="stat stays"),
        pytest.param("[all]", on("file.stat", "/w/key"), True, id="all holds stat"),
        pytest.param("[all]", on("file.mknod", "/w/key"), True, id="all holds mknod in a block"),
        pytest.param("[write]", on("file.truncate", "/w/key"), True, id="write holds truncate"),
        pytest.param("[read]", on("file.rename", "/w/key"), True, id="not out from under the rule by a rename"),
        pytest.param("[read]", on("file.link", "/w/key"), True, id="nor by a link"),
        pytest.param("[read]", on("file.rename", "/w", directory=True), True, id="nor with its directory"),
        pytest.param(
            "[read]", on("file.create", "/w", directory=True), True, id="no directory in the place of its own"
        ),
        pytest.param("[read]", on("file.delete", "/w", directory=True), True, id="its directory is not deleted"),
        pytest.param("[read]", on("file.rename", "/w", directory=False), False, id="a file holds nothing"),
        pytest.param("[read]", on("file.rename", "/w2", directory=True), False, id="another directory"),
        pytest.param("[read]", on("file.read", "/w", directory=True), False, id="to look into its directory is free"),
    ],
)
def test_what_a_block_rule_implies(verbs, operation, blocked):
    text = f"{ALLOW_ALL}block:\n  - {{id: key, file: {{do: {verbs}, paths: [/w/key]}}}}\n"
    decision = decide(compiled(text), operation)
    assert decision == (
        Decision(Verdict.DENY, Reason.BLOCK, "key") if blocked else Decision(Verdict.ALLOW, Reason.RULE, "all")
    )


@pytest.mark.parametrize(
    ("path", "directory", "blocked"),
    [
        ("/w", "/w", True),
        ("/w/*/key", "/w/sub", True),
        ("/w/*/key", "/w", True),
        ("/w/*/key", "/w/sub/other", False),
        ("/w/**/key", "/w/a/b/c", True),
        ("/w/s*/k/**", "/w/s1", True),
        ("/w/s*/k/**", "/w/t1", False),
        ("/w/s*/k/**", "/w/s1/k/deeper", True),
        ("/w/*.key", "/w/sub", False),
        ("/w/sub/**", "/w/sub", True),
    ],
)
def test_directory_that_may_hold_blocked_files_is_not_renamed(path, directory, blocked):
    text = f"{ALLOW_ALL}block:\n  - {{id: key, file: {{do: [read], paths: ['{path}']}}}}\n"
    assert decide(compiled(text), on("file.rename", directory, directory=True)).allowed is not blocked


@given(strategies.patterns(), strategies.close_paths(2), strategies.close_paths(3))
def test_no_rename_takes_a_blocked_file_along(pattern, directory, tail):
    path = directory.rstrip("/") + tail.rstrip("/")
    block = Rule("block", Effect.BLOCK, FileMatch(frozenset({Kind.FILE_READ}), (pattern,)))
    if naive.matches(pattern, path or "/"):
        policy = compile_policy(Policy("test", block=(block,)))
        assert decide(policy, on("file.rename", directory, directory=True)).reason is Reason.BLOCK


def agrees(policy: Policy, some: Iterable[tuple[Operation, Context]]) -> None:
    compiled = compile_policy(policy)
    for operation, context in some:
        decision = decide(compiled, operation, context)
        expected = naive.decide(policy, operation, context)
        assert (str(decision.verdict), str(decision.reason), decision.rule) == expected, (operation, context)
        allowed = decision.verdict is Verdict.ALLOW
        assert set(decision.charges) == (naive.charges(policy, operation, context) if allowed else set())


# Many pairs by hand: HELM_SENTRY_PAIRS=1000000
PAIRS = int(os.environ.get("HELM_SENTRY_PAIRS", "2500"))
EACH = 50 if PAIRS < 100_000 else 1000
_NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # it would take minutes, and the pair says enough


@settings(max_examples=PAIRS // EACH, deadline=None, suppress_health_check=list(HealthCheck), phases=_NO_SHRINKING)
@given(
    strategies.policies(),
    st.lists(st.tuples(strategies.operations(), strategies.contexts()), min_size=1, max_size=2),
    st.integers(0, 2**32),
)
def test_decision_agrees_with_the_naive_one(policy, some, seed):
    agrees(policy, some)
    chance = random.Random(seed)
    operations = [near(policy, chance) for _ in range(EACH - len(some))]
    agrees(policy, [(operation, context) for operation in operations for _, context in some[:1]])


def near(policy: Policy, chance: random.Random) -> Operation:
    """An operation that a rule of the policy may well match; many for the price of one example."""
    names = ["a", "b", "ab", "aab", ".a", "a.b", "*", "git", "a b", "ä"]
    matched = [match for rule in policy.rules if isinstance(match := rule.match, FileMatch | UnixMatch)]
    kinds = [kind for match in matched for kind in match.do] + [Kind.EXEC, Kind.FILE_STAT, Kind.FILE_RENAME]
    networks = [n for rule in policy.rules for n in getattr(rule.match, "addresses", ())]
    places = ["127.0.0.1", "10.0.0.1", "93.184.216.34", "224.0.0.1", "2606:4700::1", "fd00::1", "2002:7f00:1::"]
    address = str(chance.choice(networks).network_address) if networks else chance.choice(places)
    return Operation(
        chance.choice(kinds if chance.random() < 0.7 else list(Kind)),
        path="/" + "/".join(chance.choices(names, k=chance.randrange(4))),
        address=address,
        port=chance.choice([0, 80, 443, 8080, 65535]),
        protocol=chance.choice(["tcp", "udp"]),
        hosts=tuple(chance.choices(["api.example.com", "a.b.example.com", "localhost"], k=chance.randrange(2))),
        own=chance.random() < 0.5,
        directory=chance.random() < 0.5,
        argv=tuple(chance.choices(["git", "push", "--force", "a"], k=chance.randrange(4))),
        environment=tuple(chance.choices(["LD_PRELOAD=/lib/x", "LD_PRELOAD=", "A=a"], k=chance.randrange(3))),
        name=chance.choice(["", "netlink", "mount"]),
    )


def test_a_policy_says_what_it_asks_for():
    rules = (
        "allow:\n  - {id: a, exec: {paths: [/a], argv: [a], environment: {A: b}}, programs: [/b], limit: {count: 1}}\n"
        "contextual:\n  - {id: c, file: {do: [read], paths: [/c]}, when: op.port == 1 && run.counts.exec < 2}\n"
    )
    assert compiled(rules).asks_for == {"argv", "environment", "programs", "limits", "op.port", "run.counts.exec"}
    assert compiled(ALLOW_ALL).asks_for == frozenset()


@settings(deadline=None)
@given(strategies.policies(), strategies.operations(), strategies.contexts(), st.randoms())
def test_order_of_rules_does_not_matter(policy, operation, context, order: random.Random):
    lists = [list(rules) for rules in (policy.allow, policy.block, policy.contextual)]
    for rules in lists:
        order.shuffle(rules)
    allow, block, contextual = map(tuple, lists)
    shuffled = replace(policy, allow=allow, block=block, contextual=contextual)
    one, other = (decide(compile_policy(each), operation, context) for each in (shuffled, policy))
    assert replace(one, charges=()) == replace(other, charges=())
    assert set(one.charges) == set(other.charges)


@settings(deadline=None)
@given(strategies.policies(), strategies.operations())
def test_block_rules_never_add_permission(policy, operation):
    without = replace(policy, block=())
    if decide(compile_policy(policy), operation).allowed:
        assert decide(compile_policy(without), operation).allowed


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(Operation(Kind.NET_CONNECT, address="not an address", port=1, protocol="tcp"), id="address"),
        pytest.param(Operation(Kind.NET_CONNECT, address="", port=1, protocol="tcp"), id="no address"),
        pytest.param(Operation(Kind.NET_CONNECT, address="10.0.0.1", port="x", protocol="tcp"), id="port"),
        pytest.param(Operation(Kind.FILE_READ, path=None), id="path"),
        pytest.param(None, id="no operation"),
    ],
)
def test_what_cannot_be_decided_is_denied(operation):
    policy = compiled(ALLOW_ALL + "  - {id: net, connect: {addresses: [any]}}\n")
    assert decide(policy, operation) == Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR, "default")


def test_context_is_accepted():
    operation = on("file.read", "/a")
    assert decide(compiled(ALLOW_ALL), operation, Context({"role": "tester"})).allowed


def test_compiling_refuses_a_pattern_that_the_loader_would_refuse():
    rule = Rule("bad", Effect.BLOCK, FileMatch(frozenset({Kind.FILE_READ}), ("relative",)))
    with pytest.raises(ValueError, match="not absolute"):
        compile_policy(Policy("test", block=(rule,)))


def test_cost_is_flat_in_the_number_of_rules():
    """A guard against linear search: a thousand times the rules may not cost twice the time."""

    def cost(number: int) -> float:
        rules = tuple(
            Rule(f"r{index}", Effect.ALLOW, FileMatch(frozenset({Kind.FILE_READ}), (f"/srv/{index}{end}",)))
            for index in range(number // 3)
            for end in ("/**", "/file", "/*/x")
        )
        policy = compile_policy(Policy("test", allow=rules))
        operation = on("file.read", "/srv/1/a/b/c")

        def once() -> float:
            start = time.perf_counter()
            for _ in range(2000):
                decide(policy, operation)
            return time.perf_counter() - start

        return min(once() for _ in range(5))

    assert cost(10_000) < 2 * cost(10)
