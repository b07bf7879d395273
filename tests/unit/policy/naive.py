"""Policies decided the obvious way: every rule is tried, every pattern is matched name by name.

Written from the text of the policy reference, with none of the code under test, so that the two can disagree.
"""

import fnmatch
import ipaddress
import os
import re
from dataclasses import replace

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.context import Context
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Policy,
    Rule,
    SocketMatch,
    UnixMatch,
)
from tests.strategies import CONDITIONS


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a canonical path."""
    return _match_names(_parts(pattern), _names(path))


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _parts(pattern: str) -> list[str]:
    return [part for part in pattern.split("/") if part]


def _match_names(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_match_names(parts[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and _match_name(_bytes_of(parts[0]), names[0]) and _match_names(parts[1:], names[1:])


def _bytes_of(part: str) -> list[str]:
    # A part as a list of tokens: `*`, `?`, a set in brackets, or a backslash and a literal character.
    tokens = re.findall(r"\\x[0-9a-f]{2}|\\.|\[!?(?:\\.|[^\]\\])+\]|.", part, re.DOTALL)
    literal = [
        token if token in "*?" or token[0] == "[" and len(token) > 1 else "\\" + _literal(token) for token in tokens
    ]
    joined, run = [], ""
    for token in [*literal, ""]:
        if token.startswith("\\"):
            run += token[1:]
        else:
            joined += ["\\" + char for char in os.fsdecode(os.fsencode(run))] + [token]
            run = ""
    return [token for token in joined if token]


def _literal(token: str) -> str:
    if token.startswith("\\x"):
        value = int(token[2:], 16)
        return chr(value) if value < 128 else chr(0xDC00 + value)
    return token[-1]


def _match_name(tokens: list[str], name: str) -> bool:
    if not tokens:
        return not name
    if tokens[0] == "*":
        return any(_match_name(tokens[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and _match_char(tokens[0], name[0]) and _match_name(tokens[1:], name[1:])


def _match_char(token: str, char: str) -> bool:
    if token == "?":
        return True
    if token.startswith("\\"):
        return token[1:] == char
    negated, members = token[1] == "!", token[1:-1].removeprefix("!")
    ranges = re.findall(r"(\\.|.)(?:-(\\.|.))?", members, re.DOTALL)
    return negated != any(first[-1] <= char <= (last or first)[-1] for first, last in ranges)


def ancestors(path: str) -> list[str]:
    names = _names(path)
    return ["/" + "/".join(names[:count]) for count in range(len(names))]


def prefix_of(pattern: str) -> str:
    """The leading names of a pattern that hold no wildcard."""
    names = []
    for part in _parts(pattern):
        tokens = _bytes_of(part)
        if not all(token.startswith("\\") for token in tokens):
            break
        names.append("".join(token[1:] for token in tokens))
    return "/" + "/".join(names)


def decide(policy: Policy, operation: Operation, context: Context) -> tuple[str, str, str]:
    """Return verdict, reason and the id of the smallest rule that says so."""
    said: list[tuple[int, str, str, str]] = []
    for rule in policy.rules:
        if not concerns(rule, operation, context):
            continue
        spent = rule.limit is not None and rule.id in context.spent and stated(rule, operation)
        if rule.effect is Effect.BLOCK:
            if rule.limit is None and applies(rule, operation):
                said.append((0, rule.id, "DENY", "BLOCK"))
            elif spent:
                said.append((1, rule.id, "DENY", "BUDGET"))
        elif rule.effect is Effect.ALLOW:
            if spent:
                said.append((1, rule.id, "DENY", "BUDGET"))
            elif applies(rule, operation):
                said.append((3, rule.id, "ALLOW", "RULE"))
        else:
            said += contextual(rule, operation, context, spent)
    _, name, verdict, reason = min(said, default=(9, "default", "DENY", "DEFAULT"))
    return verdict, reason, name


def contextual(rule: Rule, operation: Operation, context: Context, spent: bool) -> list[tuple[int, str, str, str]]:
    """A contextual rule allows while its condition is true and blocks while it is not."""
    blocks = applies(replace(rule, effect=Effect.BLOCK), operation)
    try:
        holds = CONDITIONS[rule.when](operation, context)
    except (IndexError, ZeroDivisionError):
        return [(1, rule.id, "DENY", "CONDITION_ERROR")] if blocks else []
    if not holds:
        rank = 1 if rule.otherwise is Verdict.DENY else 2
        return [(rank, rule.id, str(rule.otherwise), "CONDITION")] if blocks else []
    if spent:
        return [(1, rule.id, "DENY", "BUDGET")]
    return [(3, rule.id, "ALLOW", "RULE")] if applies(replace(rule, effect=Effect.ALLOW), operation) else []


def charges(policy: Policy, operation: Operation, context: Context) -> set[str]:
    """Return the ids of the rules whose limit an allowed operation uses up."""
    return {
        rule.id
        for rule in policy.rules
        if rule.limit and concerns(rule, operation, context) and stated(rule, operation)
    }


def concerns(rule: Rule, operation: Operation, context: Context) -> bool:
    """Whether a rule holds for the process that asks, and for the arguments and environment of an exec."""
    if rule.programs and not any(matches(p, path) for p in rule.programs for path in context.process.ancestry):
        return False
    if not isinstance(rule.match, ExecMatch) or operation.kind is not Kind.EXEC:
        return True
    wanted, given = rule.match.argv, operation.argv
    if wanted is not None:
        if wanted[-1] == "...":
            wanted, given = wanted[:-1], given[: len(wanted) - 1]
        if len(wanted) != len(given) or not all(map(_matches_text, wanted, given)):
            return False
    quantify = any if rule.effect is Effect.BLOCK else all
    for name, value in rule.match.environment.items():
        found = [
            each.partition("=")[2] for each in operation.environment if _matches_text(name, each.partition("=")[0])
        ]
        if not found or not quantify(_matches_text(value, one) for one in found):
            return False
    return True


def _matches_text(pattern: str, text: str) -> bool:
    return _match_name(_bytes_of(pattern), text)


def stated(rule: Rule, operation: Operation) -> bool:
    """Whether a rule names this very operation, whatever it implies besides."""
    match rule.match:
        case FileMatch(do, paths):
            kinds = do | ({Kind.FILE_TRUNCATE} if Kind.FILE_WRITE in do else set())
        case UnixMatch(do, paths):
            kinds = set(do)
        case ExecMatch(paths):
            kinds = {Kind.EXEC}
        case _:
            return applies(replace(rule, effect=Effect.ALLOW), operation)
    path = operation.path
    return operation.kind in kinds and path.startswith("/") and any(matches(pattern, path) for pattern in paths)


def applies(rule: Rule, operation: Operation) -> bool:
    """Whether a rule matches an operation."""
    match rule.match:
        case FileMatch(do, paths):
            return _on_paths(
                rule.effect, do | ({Kind.FILE_TRUNCATE} if Kind.FILE_WRITE in do else set()), paths, operation
            )
        case ExecMatch(paths):
            return _on_paths(rule.effect, {Kind.EXEC}, paths, operation)
        case UnixMatch(do, paths):
            return _on_paths(rule.effect, do, paths, operation)
        case ConnectMatch():
            return operation.kind in (Kind.NET_CONNECT, Kind.NET_SEND) and _on_network(rule, operation)
        case BindMatch():
            return operation.kind is Kind.NET_BIND and _on_network(rule, operation)
        case SocketMatch(families):
            return operation.kind is Kind.NET_SOCKET and operation.name in families
        case KernelMatch(kinds):
            return operation.kind in kinds
    raise AssertionError(rule)


def _on_paths(effect: Effect, kinds: set[Kind], paths: tuple[str, ...], operation: Operation) -> bool:
    path, kind = operation.path, operation.kind
    if not path.startswith("/"):
        return False
    hit = any(matches(pattern, path) for pattern in paths)
    if effect is Effect.ALLOW:
        passed = kind is Kind.FILE_STAT and any(path in [*ancestors(prefix_of(p)), prefix_of(p)] for p in paths)
        return hit and kind in {*kinds, Kind.FILE_STAT} or passed
    moved = operation.directory and kind in (Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE)
    if moved and any(path in ancestors(prefix_of(pattern)) for pattern in paths):
        return True
    if (
        operation.directory
        and kind in (Kind.FILE_RENAME, Kind.FILE_CREATE)
        and any(_may_hold(_parts(p), _names(path)) for p in paths)
    ):
        return True
    return hit and kind in {*kinds, Kind.FILE_RENAME, Kind.FILE_LINK}


# Whether something beneath the directory may match.
def _may_hold(parts: list[str], names: list[str]) -> bool:
    if not parts or parts[0] == "**":
        return bool(parts)
    return not names or _match_name(_bytes_of(parts[0]), names[0]) and _may_hold(parts[1:], names[1:])


def _on_network(rule: Rule, operation: Operation) -> bool:
    match = rule.match
    assert isinstance(match, ConnectMatch | BindMatch)
    if operation.protocol not in match.protocols:
        return False
    if not any(low <= operation.port <= high for low, high in match.ports):
        return False
    address = ipaddress.ip_address(operation.address)
    if any(address in network for network in match.addresses):
        return True
    if rule.effect is Effect.BLOCK and match.addresses and address.is_unspecified:
        return True
    if isinstance(match, BindMatch):
        return False
    if match.own and operation.own or set(match.hosts) & set(operation.hosts):
        return True
    wild = [host for host in match.hosts if host.startswith("*")]
    beneath = any(fnmatch.fnmatchcase(name, host) for name in operation.hosts for host in wild)
    return beneath and (rule.effect is Effect.BLOCK or _outside(address))


# What Python's table of the registries calls global, and the networks of the documentation, which lead nowhere.
def _outside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    nowhere = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
    if any(address in ipaddress.ip_network(network) for network in nowhere):
        return True
    if address in ipaddress.ip_network("192.0.0.0/24") or address.is_multicast:
        return False
    if address.version == 6 and (address.sixtofour or not ipaddress.ip_address("2000::") <= address):
        return False
    return address.is_global and (address.version == 4 or address < ipaddress.ip_address("4000::"))
