"""Path patterns and the indexes over many rules, against a matcher that does it the obvious way."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.match import NONE, EndpointIndex, PathIndex
from helm_sentry.policy.model import ConnectMatch, Effect
from helm_sentry.policy.values import networks
from tests import strategies
from tests.unit.policy import naive


def found_by(patterns: list[str], path: str) -> bool:
    index = PathIndex()
    for text in patterns:
        index.add(pattern.parse(text), Effect.ALLOW, "rule")
    return index.find_path(path)[1] != NONE


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        pytest.param("/a/b", ["/a/b"], ["/a", "/a/b/c", "/a/bb", "/"], id="exact"),
        pytest.param("/", ["/"], ["/a"], id="root"),
        pytest.param("/[\\x61-\\x63]", ["/a", "/b"], ["/d"], id="bytes in a set"),
        pytest.param("/a/**", ["/a", "/a/b", "/a/b/c"], ["/", "/ab", "/b/a"], id="tree holds its own root"),
        pytest.param("/**", ["/", "/a", "/a/b"], ["pipe:[7]", "a", ""], id="everything is every path"),
        pytest.param("/a/*", ["/a/b", "/a/.b"], ["/a", "/a/b/c"], id="star is one name, dot included"),
        pytest.param("/a/*.txt", ["/a/x.txt", "/a/.txt"], ["/a/x.txt.gz", "/a/b/x.txt"], id="star stays in its name"),
        pytest.param("/*/b*c*d", ["/x/bcd", "/x/b1c2c3d"], ["/x/bdc", "/x/bcd/e", "/x/bcde"], id="several stars"),
        pytest.param("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/a", "/z", "/a/z/b"], id="deep in the middle"),
        pytest.param("/**/x/**/z", ["/x/z", "/a/x/b/z", "/x/x/z/z"], ["/z", "/x", "/x/z/a"], id="deep twice"),
        pytest.param("/a/**/b/**", ["/a/b", "/a/c/b/d"], ["/a", "/a/c"], id="deep in the middle and at the end"),
        pytest.param("/a/**/**", ["/a", "/a/b"], ["/"], id="deep repeated"),
        pytest.param("/a?c", ["/abc", "/aéc", "/a\udcffc"], ["/ac", "/a/c", "/abbc"], id="question mark"),
        pytest.param("/[a-c!]", ["/a", "/c", "/!"], ["/d", "/"], id="set"),
        pytest.param("/[!a-c]", ["/d"], ["/a", "/"], id="set of others"),
        pytest.param("/x[+-9]y", ["/x5y", "/x.y"], ["/x/y"], id="a range never holds the slash"),
        pytest.param("/x[!a]y", ["/xby"], ["/x/y"], id="others never hold the slash"),
        pytest.param(r"/[\]\-a]", ["/]", "/-", "/a"], ["/b"], id="escapes in a set"),
        pytest.param(r"/\*\?\[", ["/*?["], ["/abc"], id="escapes"),
        pytest.param(r"/\xff\x0a", ["/\udcff\n"], ["/ÿ\n"], id="bytes"),
        pytest.param(r"/\xc3\xa9", ["/é"], ["/\udcc3\udca9"], id="bytes that are one character"),
        pytest.param(r"/a\x2ab", ["/a*b"], ["/axb"], id="a byte is never special"),
        pytest.param("/a//b", ["/a/b"], ["/a//b"], id="slashes collapse"),
        pytest.param("/a.b+c$", ["/a.b+c$"], ["/aXb+c$"], id="regular expressions have no meaning"),
    ],
)
def test_pattern(text, matching, others):
    assert [path for path in matching if not found_by([text], path)] == []
    assert [path for path in others if found_by([text], path)] == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a/b", "is not absolute; begin it with `/`"),
        ("", "is not absolute"),
        ("/a/", "ends in a slash; write `/a` or, with all beneath it, `/a/**`"),
        ("/a/../b", "contains `..`"),
        ("/./a", "contains `.`"),
        ("/a**", "`**` stands alone"),
        ("/a/***/b", "`**` stands alone"),
        ("/a[b", "`[` without its `]`"),
        ("/[]", "`[` without its `]`"),
        ("/a[b/c]", "`[` without its `]`"),
        ("/[^a]", "write `[!...]`"),
        ("/[[:alpha:]]", "named set"),
        ("/[z-a]", "empty range"),
        ("/a\\", "ends in a backslash"),
        ("/a\\n", "is not an escape"),
        ("/a\\x0", "is not an escape"),
        ("/a\\x00", "can be part of no name"),
        ("/a\\x2fb", "can be part of no name"),
        ("/" + "a" * pattern.MAX_LENGTH, "longer than any path"),
        ("/*" * 65, "more than 64 names"),
    ],
)
def test_pattern_that_can_match_nothing_is_refused(text, hint):
    with pytest.raises(ValueError, match=re.escape(hint)):
        pattern.parse(text)


@given(strategies.paths())
def test_quoted_path_matches_itself_and_is_printable(path):
    quoted = pattern.quote(path)
    assert quoted.isprintable()
    assert pattern.parse(quoted).prefix == path
    assert found_by([quoted], path)


@given(strategies.paths(), strategies.paths())
def test_quoted_path_matches_nothing_else(path, other):
    assert found_by([pattern.quote(path)], other) == (path == other)


@given(st.text())
def test_printable_text_is_printable(text):
    assert pattern.printable(text).isprintable()


@given(st.lists(strategies.patterns(), max_size=8), strategies.close_paths())
def test_index_agrees_with_the_naive_matcher(patterns, path):
    index = PathIndex()
    for number, text in enumerate(patterns):
        index.add(pattern.parse(text), Effect.BLOCK if number % 3 == 0 else Effect.ALLOW, f"rule{number}")
    hits = [(number, f"rule{number}") for number, text in enumerate(patterns) if naive.matches(text, path)]
    blocks = min((rule for number, rule in hits if number % 3 == 0), default=NONE)
    allows = min((rule for number, rule in hits if number % 3), default=NONE)
    assert index.find_path(path) == (blocks, allows)


@given(strategies.patterns())
def test_ancestors_and_prefix_agree_with_the_naive_matcher(text):
    parsed = pattern.parse(text)
    assert (parsed.prefix or "/") == naive.prefix_of(text)
    assert sorted(parsed.ancestors) == sorted(naive.ancestors(naive.prefix_of(text)))


def test_hostile_names_do_not_make_a_pattern_slow():
    index = PathIndex()
    for number, text in enumerate(["/a/*a*a*a*a*a*b", "/a/**/a*/**/a*/**/a*/**/b", "/a/?*?*?*?*?*?*?*c"]):
        index.add(pattern.parse(text), Effect.ALLOW, f"rule{number}")
    paths = ["/a/" + "a" * 255, "/a" + "/a" * 2000, "/a/" + "a" * 4000]
    start = time.perf_counter()
    for path in paths:
        index.find_path(path)
    assert time.perf_counter() - start < 1


def connecting(address="198.51.100.1", **fields):
    return Operation(Kind.NET_CONNECT, address=address, **{"port": 443, "protocol": "tcp"} | fields)


def endpoint_found(match: ConnectMatch, operation: Operation, effect: Effect = Effect.ALLOW) -> bool:
    index = EndpointIndex()
    index.add(match, effect, "rule")
    return index.find(operation) != (NONE, NONE)


@pytest.mark.parametrize(
    ("match", "operation", "expected"),
    [
        pytest.param(ConnectMatch(("a.example",)), connecting(hosts=("b", "a.example")), True, id="host"),
        pytest.param(ConnectMatch(("a.example",)), connecting(hosts=("A.Example.",)), True, id="host in other letters"),
        pytest.param(ConnectMatch(("a.example",)), connecting(hosts=("x.a.example",)), False, id="host is no suffix"),
        pytest.param(ConnectMatch(("*.example",)), connecting(hosts=("b", "a.example")), True, id="beneath"),
        pytest.param(ConnectMatch(("*.example",)), connecting(hosts=("b.A.Example.",)), True, id="far beneath"),
        pytest.param(ConnectMatch(("*.example",)), connecting(hosts=("example",)), False, id="not beneath itself"),
        pytest.param(ConnectMatch(("*.ample",)), connecting(hosts=("a.example",)), False, id="beneath part of a label"),
        pytest.param(ConnectMatch(("*.example",)), connecting(), False, id="beneath, but nobody asked"),
        *[
            pytest.param(ConnectMatch(("*.example",)), connecting(address, hosts=("a.example",)), public, id=address)
            for address, public in {
                **dict.fromkeys(("93.184.216.34", "2606:4700::1111", "2001:db8::1"), True),
                **dict.fromkeys(("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254"), False),
                **dict.fromkeys(("100.64.0.1", "0.0.0.0", "224.0.0.251", "255.255.255.255", "::1", "::"), False),
                **dict.fromkeys(("fe80::1", "fd00:ec2::254", "ff02::1", "2002:7f00:1::1", "2001::1"), False),
                **dict.fromkeys(("64:ff9b::a9fe:a9fe", "::7f00:1", "fe80::1%2"), False),
            }.items()
        ],
        pytest.param(ConnectMatch(own=True), connecting("127.0.0.1", own=True), True, id="own"),
        pytest.param(ConnectMatch(own=True), connecting("127.0.0.1"), False, id="somebody else's loopback"),
        pytest.param(ConnectMatch(own=True, ports=((80, 80),)), connecting(own=True), False, id="own, other port"),
        pytest.param(ConnectMatch(addresses=networks("198.51.100.0/24")), connecting(), True, id="network"),
        pytest.param(ConnectMatch(addresses=networks("198.51.101.0/24")), connecting(), False, id="other network"),
        pytest.param(ConnectMatch(addresses=networks("any")), connecting("2001:db8::1"), True, id="any"),
        pytest.param(ConnectMatch(addresses=networks("::/0")), connecting(), False, id="other version"),
        pytest.param(ConnectMatch(addresses=networks("loopback")), connecting("127.8.9.1"), True, id="loopback"),
        pytest.param(ConnectMatch(addresses=networks("loopback")), connecting("0.0.0.0"), False, id="unspecified"),
        pytest.param(ConnectMatch(addresses=networks("fe80::/10")), connecting("fe80::1%2"), True, id="scoped address"),
        pytest.param(
            ConnectMatch(addresses=networks("any"), ports=((1, 442), (444, 65535))), connecting(), False, id="ports"
        ),
        pytest.param(
            ConnectMatch(addresses=networks("any"), protocols=frozenset({"udp"})), connecting(), False, id="protocol"
        ),
    ],
)
def test_endpoint(match, operation, expected):
    assert endpoint_found(match, operation) is expected


def test_what_refuses_names_beneath_refuses_inner_addresses_too():
    inner = connecting("10.0.0.1", hosts=("a.example",))
    assert endpoint_found(ConnectMatch(("*.example",)), inner, Effect.BLOCK)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_block_of_any_address_holds_for_the_unspecified_one(address):
    """The kernel connects it to loopback or to the address the socket is bound to."""
    block = ConnectMatch(addresses=networks("127.0.0.0/8"))
    assert endpoint_found(block, connecting(address), Effect.BLOCK)
    assert not endpoint_found(block, connecting(address), Effect.ALLOW)
