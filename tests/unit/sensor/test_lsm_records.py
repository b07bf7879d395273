"""What the programs at security hooks read: the header's layout, and what its tables mean."""

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings

from helm_sentry.decision import Verdict
from helm_sentry.errors import FeatureError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.lower import BPF_LSM, PathRule, lower
from helm_sentry.policy.model import Policy
from helm_sentry.sensor import lsm_records as records
from helm_sentry.sensor.lsm_records import NO_RULE, Number, Tables, tables
from tests.unit.policy.test_lower import ASKED, policies
from tests.unit.sensor.test_sensor_records import compiles

HEADER = Path(__file__).resolve().parents[3] / "bpf/include/lsm.h"
STRUCTURES = {
    "control": (records.CONTROL, ["rename_lock", "cgroup", "mount_namespace", "lossy"]),
    "edge": (records.EDGE, ["generation", "node", "name"]),
    "found": (records.FOUND, ["block", "allow"]),
    "network": (records.NETWORK, ["length", "generation", "kind", "version", "address"]),
    "endpoint": (records.ENDPOINT, ["low", "high", "protocols", "blocks", "rule"]),
    "counts": (records.COUNTS, ["decided", "denied", "lost", "crowded"]),
    "event": (
        records.EVENT,
        [
            *("time", "inode", "device", "pid", "tid", "number", "generation", "target", "address", "version"),
            *("protocol", "denied", "opinions[0].kind", "opinions[0].rule", "opinions[1].kind", "opinions[1].rule"),
            "path",
        ],
    ),
}


def offsets(layout: struct.Struct) -> Iterator[int]:
    place, count = 0, ""
    for letter in layout.format.lstrip("="):
        if letter.isdigit():
            count += letter
            continue
        size = {"Q": 8, "I": 4, "H": 2, "B": 1, "s": 1}[letter]
        for _ in range(1 if letter == "s" else int(count or 1)):
            yield place
            place += size * (int(count) if letter == "s" else 1)
        count = ""


@pytest.mark.parametrize("name", STRUCTURES)
def test_layout_is_the_headers(name: str) -> None:
    layout, members = STRUCTURES[name]
    assertions = [f"sizeof(struct {name}) == {layout.size}"]
    for member, place in zip(members, offsets(layout), strict=True):
        assertions.append(f"__builtin_offsetof(struct {name}, {member}) == {place}")
    done = compiles(assertions, HEADER)
    assert done.returncode == 0, done.stderr
    assert compiles([f"sizeof(struct {name}) == {layout.size + 1}"], HEADER).returncode != 0  # the control


def test_numbers_are_the_headers() -> None:
    assertions = [f"{number.name} == {number.value}" for number in Number]
    assertions += [f"KINDS == {len(Number)}", f"PATH_KINDS == {records.PATH_KINDS}", f"NO_RULE == {NO_RULE}"]
    assertions += [
        f"TREAT_DENY == {records.DENY}",
        f"TREAT_RULES == {records.BY_RULES}",
        f"TREAT_ALLOW == {records.ALLOW}",
    ]
    assertions += [f"NAME_BYTES == {records.NAME_BYTES}", f"ENDPOINTS == {records.ENDPOINTS}"]
    assertions += [f"sizeof(struct node) == {records.NODE.size}", "PROTOCOL_TCP == 1", "PROTOCOL_UDP == 2"]
    assertions += [f"__builtin_offsetof(struct node, beneath) == {8 + 4 * records.PATH_KINDS}"]
    done = compiles(assertions, HEADER)
    assert done.returncode == 0, done.stderr


def followed(made: Tables, path: str, number: Number) -> tuple[int, int]:
    """What the program in the kernel finds on the way down a path."""
    names = [name for name in os.fsencode(path).split(b"/") if name]
    node, best = made.edges.get(records.EDGE.pack(0, 0, b"")), (NO_RULE, NO_RULE)
    while node is not None:
        identity, _, *pairs = records.NODE.unpack(node)
        for half in range(1 if names else 0, 2):  # what holds here only, and what holds beneath
            place = 2 * (half * records.PATH_KINDS + number)
            best = min(best[0], pairs[place]), min(best[1], pairs[place + 1])
        if not names:
            break
        node = made.edges.get(records.EDGE.pack(0, identity, names.pop(0)))
    return best


def matched(made: Tables, operation: Operation, number: Number) -> tuple[int, int]:
    """What the program in the kernel finds in the table of networks."""
    address = ip_address(operation.address)
    protocol = {"tcp": 1, "udp": 2}.get(operation.protocol, 0)
    for length in range(address.max_prefixlen, -1, -1):
        bits = int(address) >> (address.max_prefixlen - length) << (address.max_prefixlen - length)
        packed = bits.to_bytes(address.max_prefixlen // 8, "big")
        value = made.networks.get(records.NETWORK.pack(32 + length, 0, number, address.version, packed))
        if value is None:
            continue
        best = [NO_RULE, NO_RULE]
        for place in range(int.from_bytes(value[:4], "little")):
            low, high, protocols, blocks, rule = records.ENDPOINT.unpack_from(value, 4 + place * records.ENDPOINT.size)
            if low <= operation.port <= high and protocols & protocol:
                best[not blocks] = min(best[not blocks], rule)
        return best[0], best[1]
    return NO_RULE, NO_RULE


@settings(max_examples=60, deadline=None)
@given(policies())
def test_the_tables_say_what_the_rules_say(policy: Policy) -> None:
    lowered = lower(policy, BPF_LSM)
    made = tables(lowered, 0, ())
    for operation in ASKED:
        if operation.kind not in lowered.kinds or not records.numbers_of(operation.kind, operation.directory):
            continue
        if operation.kind is Kind.FILE_DELETE and not operation.directory:
            continue  # always asked as if it was one
        number = records.numbers_of(operation.kind, operation.directory)[0]
        if number < records.PATH_KINDS:
            block, allow = followed(made, operation.path, number)
        elif operation.address:
            block, allow = matched(made, operation, number)
        else:
            continue
        matching = [rule for rule in lowered.rules if rule.matches(operation)]
        for found, verdict in ((block, Verdict.DENY), (allow, Verdict.ALLOW)):
            rules = sorted(rule.rule for rule in matching if rule.verdict is verdict)
            assert (made.rules[found] if found < NO_RULE else None) == (rules[0] if rules else None), operation
        assert (block == NO_RULE and allow != NO_RULE) == lowered.allows(operation)


def test_a_kind_that_the_broker_holds_is_denied_or_carried_out_for_it() -> None:
    policy = Policy("empty")
    lowered = lower(policy, BPF_LSM)
    treated = dict(zip(Number, tables(lowered, 0, (), frozenset({Kind.KERNEL_PERF})).treatments, strict=True))
    assert treated[Number.FILE_READ] == records.BY_RULES
    assert treated[Number.FILE_UTIME] == treated[Number.KERNEL_BPF] == records.DENY
    assert treated[Number.KERNEL_PERF] == records.ALLOW


def test_a_rule_that_is_too_deep_is_refused() -> None:
    rule = PathRule(kinds=frozenset({Kind.FILE_READ}), path="/a" * 33, prefix=True, verdict=Verdict.ALLOW, rule="deep")
    lowered = lower(Policy("empty"), BPF_LSM)
    with pytest.raises(FeatureError, match="up to 32 names"):
        tables(type(lowered)(lowered.mechanism, lowered.held, (rule,)), 0, ())
