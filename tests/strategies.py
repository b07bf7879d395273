"""Hypothesis strategies that several test modules share."""

import ipaddress
import os
from dataclasses import replace

from hypothesis import strategies as st

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.context import Context, Process, Run
from helm_sentry.policy.model import (
    ANY_PORT,
    FILE_KINDS,
    KERNEL_KINDS,
    UNIX_KINDS,
    BindMatch,
    Budget,
    ConnectMatch,
    Effect,
    Environment,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Limits,
    Policy,
    Rule,
    SocketMatch,
    UnixMatch,
)
from helm_sentry.policy.values import FAMILIES

IDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,11}", fullmatch=True)

# Few and short, so that patterns and paths meet often.
_NAMES = ("a", "b", "ab", "aab", ".a", "a.b", "*", "[", "a b", "ä", "\udcff", "b\n")
_WILD = (
    "*",
    "?",
    "a*",
    "*b",
    "a*b",
    "*a*",
    "?b",
    "[ab]",
    "[!a]",
    "[a-c]*",
    "\\*",
    "\\x61",
    "[\\]a]",
    "\\xff*",
    "**",
    "**",
)


def path_names() -> st.SearchStrategy[str]:
    """Names within paths, surrogate-escaped as `os.fsdecode` gives them."""
    arbitrary = st.binary(min_size=1, max_size=12).map(
        lambda data: os.fsdecode(data.replace(b"/", b"x").replace(b"\0", b"y"))
    )
    return st.one_of(st.sampled_from(_NAMES), arbitrary.filter(lambda name: name not in (".", "..")))


def paths(max_names: int = 5) -> st.SearchStrategy[str]:
    """Canonical absolute paths, the root included."""
    return st.lists(path_names(), max_size=max_names).map(lambda names: "/" + "/".join(names))


def close_paths(max_names: int = 5) -> st.SearchStrategy[str]:
    """Canonical absolute paths made of few names, which patterns of `patterns()` often match."""
    return st.lists(st.sampled_from(_NAMES), max_size=max_names).map(lambda names: "/" + "/".join(names))


def patterns() -> st.SearchStrategy[str]:
    """Valid path patterns."""
    part = st.one_of(st.sampled_from(_NAMES).map(pattern.quote), st.sampled_from(_WILD))
    return st.lists(part, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def pattern_lists() -> st.SearchStrategy[tuple[str, ...]]:
    """A rule's `paths`."""
    return st.lists(patterns(), min_size=1, max_size=3).map(tuple)


def networks() -> st.SearchStrategy[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks of both versions; IPv4 in the form of IPv6 is none."""
    four = st.builds(
        lambda a, n: ipaddress.ip_network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
    )
    six = st.builds(
        lambda a, n: ipaddress.ip_network((a.to_bytes(16, "big"), n), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    )
    return st.one_of(four, six.filter(lambda network: network.network_address.ipv4_mapped is None))


def addresses() -> st.SearchStrategy[str]:
    """Numeric addresses as operations carry them."""
    four = st.one_of(st.sampled_from(["127.0.0.1", "0.0.0.0", "10.1.2.3"]), st.ip_addresses(v=4).map(str))
    six = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(str)
    return st.one_of(four, st.sampled_from(["::1", "::"]), six)


def hosts() -> st.SearchStrategy[str]:
    """Names as rules give them."""
    return st.sampled_from(["api.example.com", "example.com", "localhost", "*.example.com", "*.com"])


def port_ranges() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    """A rule's `ports`."""
    one = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda pair: (min(pair), max(pair)))
    return st.one_of(st.just((ANY_PORT,)), st.lists(one, min_size=1, max_size=3).map(tuple))


def protocol_sets() -> st.SearchStrategy[frozenset[str]]:
    """A rule's `protocols`."""
    return st.sampled_from([frozenset({"tcp"}), frozenset({"udp"}), frozenset({"tcp", "udp"})])


def _some(values: object) -> st.SearchStrategy[frozenset]:
    return st.frozensets(st.sampled_from(sorted(values)), min_size=1, max_size=4)


def matchers() -> st.SearchStrategy:
    """What a rule matches, of every form."""
    own_or_not = st.builds(
        ConnectMatch,
        hosts=st.lists(hosts(), max_size=2).map(tuple),
        addresses=st.lists(networks(), max_size=2).map(tuple),
        ports=port_ranges(),
        protocols=protocol_sets(),
        own=st.booleans(),
    ).filter(lambda match: match.hosts or match.addresses or match.own)
    return st.one_of(
        st.builds(FileMatch, _some(FILE_KINDS.values()), pattern_lists()),
        st.builds(ExecMatch, pattern_lists(), argv_patterns(), environment_patterns()),
        own_or_not,
        st.builds(BindMatch, st.lists(networks(), min_size=1, max_size=2).map(tuple), port_ranges(), protocol_sets()),
        st.builds(UnixMatch, _some(UNIX_KINDS.values()), pattern_lists()),
        st.builds(SocketMatch, _some(FAMILIES).map(lambda families: tuple(sorted(families)))),
        st.builds(KernelMatch, _some(KERNEL_KINDS.values())),
    )


def argv_patterns() -> st.SearchStrategy[tuple[str, ...] | None]:
    """An exec rule's `argv`."""
    one = st.sampled_from(["git", "g*", "push", "p?sh", "[a-c]*", "*", "--force", "\\*"])
    some = st.tuples(st.lists(one, min_size=1, max_size=3), st.booleans())
    return st.none() | some.map(lambda pair: (*pair[0], *(["..."] if pair[1] else [])))


def environment_patterns() -> st.SearchStrategy[dict[str, str]]:
    """An exec rule's `environment`."""
    one = st.sampled_from(["", "*", "/lib/*", "a"])
    return st.dictionaries(st.sampled_from(["LD_PRELOAD", "LD_*", "A"]), one, max_size=2)


CONDITIONS = {
    'agent.role == "tester"': lambda o, c: c.agent.get("role") == "tester",
    "op.port > 1024 || op.own": lambda o, c: o.port > 1024 or o.own,
    'op.path.startsWith("/a")': lambda o, c: o.path.startswith("/a"),
    'op.kind == "exec" && size(op.argv) > 1 && op.argv[1] == "push"': lambda o, c: (
        o.kind == "exec" and len(o.argv) > 1 and o.argv[1] == "push"
    ),
    "op.argv[0] != 'x'": lambda o, c: o.argv[0] != "x",  # an error without arguments
    '"/a/b" in process.ancestry': lambda o, c: "/a/b" in c.process.ancestry,
    'run.counts.file.read < 2 && run.elapsed < duration("1m")': lambda o, c: (
        c.run.counts.get(Kind.FILE_READ, 0) < 2 and c.run.elapsed < 60_000_000
    ),
    "time.getHours() < 12": lambda o, c: c.time // 3_600_000_000 % 24 < 12,
    "true": lambda o, c: True,
    "1 / 0 == 1": lambda o, c: 1 // 0 == 1,
}
"""Conditions, each with the same in Python; what raises there is an error here."""


def contexts() -> st.SearchStrategy[Context]:
    """What decisions may depend on besides the operation."""
    ancestry = st.lists(close_paths(2), max_size=3, unique=True).map(tuple)
    return st.builds(
        Context,
        agent=st.sampled_from([{}, {"role": "tester"}, {"role": "other"}]),
        process=st.builds(lambda found: Process(found[-1] if found else "", found, 1000), ancestry),
        run=st.builds(Run, st.sampled_from([0, 90_000_000]), st.sampled_from([{}, {Kind.FILE_READ: 3}])),
        time=st.integers(0, 86_399_999_999),
        spent=st.frozensets(st.sampled_from(["a/0", "a/a", "b/a", "c/a", "c/0"])),
    )


def rules(effect: Effect) -> st.SearchStrategy[tuple[Rule, ...]]:
    """Rules of one effect with distinct ids."""
    conditional = effect is Effect.CONTEXTUAL
    rule = st.builds(
        Rule,
        st.sampled_from(["0", "a"]) | IDS,
        st.just(effect),
        matchers(),
        st.sampled_from(["", "because: it is", "a\nb"]),
        st.just(()) | st.lists(patterns(), min_size=1, max_size=2).map(tuple),
        st.none() | st.builds(Budget, st.integers(1, 100), st.sampled_from([0, 60])),
        st.sampled_from(sorted(CONDITIONS)) if conditional else st.just(""),
        st.sampled_from([Verdict.DENY, Verdict.ESCALATE]) if conditional else st.just(Verdict.DENY),
    )
    loadable = rule.filter(lambda made: effect is not Effect.BLOCK or not _names_beneath(made))
    return st.lists(loadable, max_size=4, unique_by=lambda rule: rule.id).map(tuple)


def _names_beneath(rule: Rule) -> bool:
    return isinstance(rule.match, ConnectMatch) and any("*" in host for host in rule.match.hosts)


def policies() -> st.SearchStrategy[Policy]:
    """Effective policies. Allow ids and block ids are told apart by a prefix, as one name space demands."""
    amount = st.one_of(st.none(), st.integers(1, 2**53 - 1))
    text = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=8)

    def named(prefix: str, some: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(replace(rule, id=f"{prefix}/{rule.id}") for rule in some)

    return st.builds(
        lambda name, agent, allow, block, contextual, limits, environment, gap: Policy(
            name,
            "",
            agent,
            named("a", allow),
            named("b", block),
            limits,
            environment,
            named("c", contextual),
            on_witness_gap=gap,
        ),
        IDS,
        st.dictionaries(st.sampled_from(["role", "name", "team.name"]), text.filter(bool), max_size=2),
        rules(Effect.ALLOW),
        rules(Effect.BLOCK),
        rules(Effect.CONTEXTUAL),
        st.builds(Limits, *[amount] * 6),
        st.builds(
            Environment,
            st.lists(st.sampled_from(["PATH", "LC_*", "*"]), unique=True).map(tuple),
            st.dictionaries(st.sampled_from(["HOME", "A_1", "_"]), text, max_size=2),
        ),
        st.sampled_from(["record", "deny"]),
    )


def operations() -> st.SearchStrategy[Operation]:
    """Operations of every kind, made of parts that may or may not belong to the kind."""
    return st.builds(
        Operation,
        kind=st.sampled_from(list(Kind)),
        path=st.one_of(paths(), close_paths(), st.sampled_from(["", "pipe:[7]", "relative/path"])),
        address=addresses(),
        port=st.integers(0, 65535),
        protocol=st.sampled_from(["tcp", "udp"]),
        hosts=st.lists(st.sampled_from(["api.example.com", "example.com", "localhost", "a.b.com"]), max_size=2).map(
            tuple
        ),
        own=st.booleans(),
        directory=st.booleans(),
        argv=st.lists(st.sampled_from(["git", "push", "--force", "a", "*"]), max_size=3).map(tuple),
        environment=st.lists(
            st.sampled_from(["LD_PRELOAD=/lib/x", "LD_PRELOAD=", "LD_A=a", "A=a", "A"]), max_size=2
        ).map(tuple),
        name=st.sampled_from(["", "netlink", "packet", "mount"]),
    )
