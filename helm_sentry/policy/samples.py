"""Operations that a rule is about, one or two for each pattern: what a rule can be tried on without a log. Pure."""

import re
from collections.abc import Iterator

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    ExecMatch,
    FileMatch,
    Rule,
    SocketMatch,
    UnixMatch,
)

_WORD = "sample7q"  # a name that no policy writes out
_TOKEN = re.compile(r"\\x([0-9a-fA-F]{2})|\\(.)|(\*+)|(\?)|\[(!?)((?:\\.|[^\]\\])+)\]|(.)", re.DOTALL)
_OTHERS = "qzjx7"
_TREES = frozenset({Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE})
_NOWHERE = "192.0.2.1"  # RFC 5737


def paths(text: str) -> tuple[str, ...]:
    """Return paths that a pattern matches; each `**` once as nothing and once as two names."""
    found = []
    for deep in ((), (_WORD, f"{_WORD}.x")):
        names: list[str] = []
        for name in re.split("/+", text)[1:]:
            names += deep if name == "**" else [_name(name)]
        candidate = "/" + "/".join(names)
        if _matches(text, candidate):
            found.append(candidate)
    return tuple(dict.fromkeys(found))


def operations(rule: Rule) -> Iterator[Operation]:
    """Yield operations that a rule is about."""
    match = rule.match
    if isinstance(match, FileMatch | UnixMatch | ExecMatch):
        kinds = (Kind.EXEC,) if isinstance(match, ExecMatch) else tuple(sorted(match.do))
        for text in match.paths:
            for path in paths(text):
                yield from (Operation(kind, path=path, directory=kind in _TREES) for kind in kinds)
    elif isinstance(match, ConnectMatch | BindMatch):
        yield from _endpoints(match)
    elif isinstance(match, SocketMatch):
        yield from (Operation(Kind.NET_SOCKET, name=family) for family in match.families)
    else:
        yield from (Operation(kind, name=kind.partition(".")[2]) for kind in sorted(match.kinds))


def _endpoints(match: ConnectMatch | BindMatch) -> Iterator[Operation]:
    kind = Kind.NET_BIND if isinstance(match, BindMatch) else Kind.NET_CONNECT
    places: list[tuple[str, tuple[str, ...], bool]] = []
    for network in match.addresses:
        places += [(str(network[0]), (), False), (str(network[-1]), (), False)]
    if isinstance(match, ConnectMatch):
        places += [(_NOWHERE, (host.replace("*", _WORD),), False) for host in match.hosts]
        places += [("127.0.0.1", (), True)] if match.own else []
    for address, hosts, own in places:
        for port in sorted({port for ends in match.ports for port in ends}):
            for protocol in sorted(match.protocols):
                yield Operation(kind, address=address, port=port, protocol=protocol, hosts=hosts, own=own)


def _name(name: str) -> str:
    def one(token: re.Match[str]) -> str:
        code, escaped, stars, single, negated, members, plain = token.groups()
        if code:
            value = int(code, 16)
            return chr(value) if value < 0x80 else chr(0xDC00 + value)
        if escaped or plain:
            return escaped or plain
        if stars:
            return _WORD
        if single:
            return "q"
        first = members.removeprefix("\\")[0]
        return next((char for char in _OTHERS if char not in members), "_") if negated else first

    return _TOKEN.sub(one, name).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _matches(text: str, path: str) -> bool:
    parsed = pattern.parse(text)
    if not parsed.rest:
        return path == parsed.prefix
    return path.startswith(parsed.prefix) and bool(
        re.compile(pattern.regex(parsed.rest)).fullmatch(path, len(parsed.prefix))
    )
