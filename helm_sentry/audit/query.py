"""Picking records out of a log. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from helm_sentry.audit.canonical import Fields

COLUMNS = (
    "seq", "time", "type", "verdict", "reason", "rule", "syscall", "ops", "target", "to", "action", "errno", "tid",
    "pid", "exe", "argv", "hosts", "sent", "received", "detail",
)  # fmt: skip
"""Columns of a table of records; a record has some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; empty members do not matter, several values of one are alternatives. Patterns have * and ?.

    Attributes:
        types: types of record.
        verdicts: verdicts of decisions.
        rules: patterns of rule ids.
        operations: patterns of kinds, as `file.*`.
        paths: patterns of paths; a path also matches what is beneath it.
        hosts: patterns of addresses or names, without the port, or networks as `10.0.0.0/8`.
        pids: thread or process ids.
        since: microseconds since the epoch, inclusive.
        until: microseconds since the epoch, exclusive; 0 for no end.
    """

    types: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    since: int = 0
    until: int = 0

    def matches(self, record: Fields) -> bool:
        """Return whether a record is wanted."""
        time = record.get("time")
        if not isinstance(time, int) or time < self.since or (self.until and time >= self.until):
            return False
        return (
            _is_one(record.get("type"), self.types)
            and _is_one(record.get("verdict"), self.verdicts)
            and (not self.pids or record.get("tid") in self.pids or record.get("pid") in self.pids)
            and _fits([str(record.get("rule", ""))], self.rules)
            and _fits(operations(record), self.operations)
            and (not self.paths or any(_beneath(path, self.paths) for path in paths(record)))
            and (not self.hosts or any(_is_at(host, self.hosts) for host in hosts(record)))
        )


def operations(record: Fields) -> list[str]:
    """Return the kinds of operation of a decision; those of other records stand in for none."""
    kinds = record.get("ops")
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else []


def paths(record: Fields) -> list[str]:
    """Return the paths that a record names."""
    found = [record.get(name) for name in ("target", "to", "exe")]
    return [path for path in found if isinstance(path, str) and path.startswith("/")]


def hosts(record: Fields) -> list[str]:
    """Return the address that a record is about, without its port, and its names; nothing for other records."""
    if record.get("type") != "traffic" and not any(kind.startswith("net.") for kind in operations(record)):
        return []
    names = record.get("hosts")
    address = str(record.get("target", "")).rpartition(":")[0].strip("[]")
    return [address, *map(str, names if isinstance(names, list) else ())]


def moment(text: str, now: int) -> int:
    """Return the time that a person wrote, in microseconds since the epoch.

    Args:
        text: ISO 8601, in UTC unless it says otherwise, or `10m`: so long ago (s, m, h, d).
        now: microseconds since the epoch.

    Raises:
        ValueError: neither.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    if unit and text[:-1].isdigit():
        return now - int(text[:-1]) * unit * 1_000_000
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def clock(record: Fields) -> str:
    """Return a record's time of day, in UTC, to the millisecond."""
    time = record.get("time")
    found = datetime.fromtimestamp((time if isinstance(time, int) else 0) / 1_000_000, UTC)
    return found.strftime("%H:%M:%S.") + f"{found.microsecond // 1000:03d}"


def line(record: Fields) -> str:
    """Return a record in one line for a person."""
    kind = str(record.get("type"))
    if kind == "decision":
        what = f"{record.get('verdict'):<8} {'+'.join(operations(record))} {record.get('target')}"
        what += f" -> {record['to']}" if "to" in record else ""
        what += f" [{record.get('rule')}]"
    elif kind == "exec":
        what = f"{'ran':<8} {record.get('exe')} as process {record.get('pid')}"
    elif kind == "start":
        argv = record.get("argv")
        what = f"{'start':<8} {' '.join(map(str, argv if isinstance(argv, list) else ()))} as {record.get('user')}"
    elif kind == "outcome":
        what = f"{'failed':<8} record {record.get('of')}"
    else:
        members = (f"{name}={value}" for name, value in sorted(record.items()) if name not in _FRAME)
        what = f"{kind:<8} {' '.join(members)}"
    errno = f" {record['errno']}" if "errno" in record else ""
    tid = f" (thread {record['tid']})" if "tid" in record else ""
    return f"{record.get('seq'):>7} {clock(record)} {what}{errno}{tid}"


def row(record: Fields) -> list[str]:
    """Return a record as the cells of a table with `COLUMNS`; lists are joined by spaces."""
    cells: Iterable[object] = (record.get(name, "") for name in COLUMNS)
    return [" ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells]


_FRAME = frozenset({"type", "seq", "time", "prev", "hash"})


def _is_one(value: object, wanted: tuple[str, ...]) -> bool:
    return not wanted or value in wanted


def _fits(values: list[str], patterns: tuple[str, ...]) -> bool:
    return not patterns or any(value and fnmatchcase(value, pattern) for value in values for pattern in patterns)


def _is_at(host: str, wanted: tuple[str, ...]) -> bool:
    return bool(host) and any(
        fnmatchcase(host.lower(), pattern.lower()) or _within(host, pattern) for pattern in wanted
    )


def _within(host: str, network: str) -> bool:
    try:
        return "/" in network and ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def _beneath(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) or path.startswith(pattern.rstrip("/") + "/") for pattern in patterns)
