"""What a run came to, for a person who has a minute. Pure.

What was denied and why, files written, programs run, addresses reached, the tree of processes.
"""

from collections import Counter
from dataclasses import dataclass, field

from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.audit.query import hosts, operations

_WRITES = frozenset(
    f"file.{verb}"
    for verb in (
        "write", "create", "delete", "rename", "link", "truncate", "chmod", "chown", "xattr", "utime", "mknod",
    )
)  # fmt: skip
_REACHES = frozenset({"net.connect", "net.send", "net.bind", "unix.connect", "unix.bind"})
_REASONS = {
    "DEFAULT": "no rule allows it",
    "BLOCK": "block rule",
    "BUILTIN": "the supervisor's own rule",
    "CONDITION": "condition does not hold in rule",
    "CONDITION_ERROR": "condition cannot be evaluated in rule",
    "CEILING": "no rule of the run above allows it",
    "BUDGET": "used up the limit of rule",
    "APPROVED": "asked a person, by rule",
    "DISAPPROVED": "a person refused it, asked by rule",
    "UNANSWERED": "nobody answered in time, asked by rule",
    "CHANGED": "came to something else than was approved",
    "KERNEL": "the kernel refused it",
    "NO_POLICY": "there is no policy",
    "STALE_POLICY": "the policy is too old",
    "UNREADABLE": "its arguments could not be read",
    "UNKNOWN_SYSCALL": "unknown system call",
    "FOREIGN_ABI": "system call of another ABI",
    "EXEC_MISMATCH": "another program ran than was approved; killed",
    "RUN_ENDED": "outlived the main program; ended",
    "SUPERVISOR_ERROR": "the supervisor failed at it",
}
_OF_A_RULE = frozenset(
    {"BLOCK", "BUILTIN", "CONDITION", "CONDITION_ERROR", "BUDGET", "APPROVED", "DISAPPROVED", "UNANSWERED"}
)
_MOST = 20  # rows of a section
_MOST_RECENT = 1 << 16  # acts of which a failure can still be reported


@dataclass(slots=True)
class Process:
    """A process that executed something.

    Attributes:
        pid: process id.
        programs: what it executed, in order.
        ancestors: the processes above it when it last did, the nearest first.
    """

    pid: int
    programs: list[str] = field(default_factory=list)
    ancestors: tuple[int, ...] = ()


class Summary:
    """Takes the records of a run in order."""

    def __init__(self) -> None:
        self.start: Fields = {}
        self.end: Fields = {}
        self.records = 0
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.rules: Counter[tuple[str, str]] = Counter()
        self.denied: Counter[tuple[str, str, str]] = Counter()
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.written: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self.traffic: dict[str, list[int]] = {}
        self.processes: dict[int, Process] = {}
        self._last = 0
        self._recent: dict[int, tuple[Counter[str], str]] = {}

    def add(self, record: Fields) -> None:
        """Take one record."""
        self.records += 1
        self._last = _number(record.get("time"))
        match record.get("type"):
            case "start":
                self.start = record
            case "end":
                self.end = record
            case "decision":
                self._add_decision(record)
            case "traffic":
                sent = self.traffic.setdefault(str(record.get("target")), [0, 0])
                sent[0] += _number(record.get("sent"))
                sent[1] += _number(record.get("received"))
            case "outcome":
                self._take_back(_number(record.get("of")))
            case "exec":
                self._add_exec(record)

    def _add_decision(self, record: Fields) -> None:
        verdict, kinds = str(record.get("verdict")), operations(record)
        target = str(record.get("target"))
        self.counts[verdict] += 1
        self.rules[str(record.get("rule")), verdict] += 1
        self.kinds.update((kind, verdict) for kind in kinds)
        if verdict != "ALLOW":
            refused = self.asked if verdict == "ESCALATE" else self.denied
            refused["+".join(kinds) or str(record.get("syscall")), target, _why(record)] += 1
            return
        if record.get("errno"):
            return
        if _WRITES.intersection(kinds):
            self._count(record, self.written, str(record.get("to", target)) if "file.rename" in kinds else target)
        if _REACHES.intersection(kinds):
            self._count(record, self.reached, target)
            self.names[target] = ", ".join(hosts(record)[1:])

    def _count(self, record: Fields, counter: Counter[str], name: str) -> None:
        counter[name] += 1
        self._recent[_number(record.get("seq"))] = (counter, name)
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def _take_back(self, sequence: int) -> None:
        """Uncount an act that was allowed and then failed."""
        counter, name = self._recent.pop(sequence, (None, ""))
        if counter is not None:
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def _add_exec(self, record: Fields) -> None:
        process = self.processes.setdefault(_number(record.get("pid")), Process(_number(record.get("pid"))))
        process.programs.append(str(record.get("exe")))
        above = record.get("ancestors")
        process.ancestors = tuple(map(_number, above)) if isinstance(above, list) else ()

    @property
    def seconds(self) -> float:
        """How long the run took, as far as it is recorded."""
        return (self._last - _number(self.start.get("time"))) / 1_000_000 if self.start else 0.0

    def fields(self) -> Fields:
        """Return the summary as JSON."""
        return {
            "run": self.start.get("run"),
            "argv": self.start.get("argv"),
            "user": self.start.get("user"),
            "enforcing": self.start.get("enforcing"),
            "microseconds": round(self.seconds * 1_000_000),
            "exit": self.end.get("exit"),
            "signal": self.end.get("signal"),
            "ended": bool(self.end),
            "records": self.records,
            "counts": dict(self.counts),
            "denied": _counted(self.denied),
            "asked": _counted(self.asked),
            "written": dict(sorted(self.written.items())),
            "programs": dict(sorted(self.programs.items())),
            "reached": dict(sorted(self.reached.items())),
            "names": {
                target: names for target, names in sorted(self.names.items()) if names and target in self.reached
            },
            "traffic": {
                target: {"sent": sent, "received": got} for target, (sent, got) in sorted(self.traffic.items())
            },
            "processes": self.tree(),
        }

    @property
    def programs(self) -> Counter[str]:
        """How often each program was executed."""
        return Counter(program for process in self.processes.values() for program in process.programs)

    def tree(self) -> list[Json]:
        """Return the processes that executed something, each beneath the nearest of its ancestors that did."""
        return [
            {"pid": process.pid, "parent": self._parent(process), "programs": list(process.programs)}
            for process in self.processes.values()
        ]

    def _parent(self, process: Process) -> int | None:
        return next((pid for pid in process.ancestors if pid in self.processes and pid != process.pid), None)

    def text(self) -> str:
        """Return the summary for a person."""
        return "\n".join([*self._head(), *self._refused(), *self._lists(), *self._tree()])

    def _head(self) -> list[str]:
        argv = self.start.get("argv")
        command = " ".join(map(str, argv)) if isinstance(argv, list) else "?"
        how = "no end record: still running, or killed"
        if self.end:
            signal = self.end.get("signal")
            how = f"ended by {signal}" if signal else f"exit status {self.end.get('exit')}"
        asked = f", {self.counts['ESCALATE']:,} asked about" if self.counts["ESCALATE"] else ""
        dry = "" if self.start.get("enforcing", True) else "; DRY RUN: nothing was enforced"
        return [
            f"run {self.start.get('run')} of: {command}",
            f"as {self.start.get('user')}, {self.seconds:.1f} s, {how}",
            f"{self.counts.total():,} decisions, {self.counts['DENY']:,} not allowed{asked}{dry}",
        ]

    def _refused(self) -> list[str]:
        asked = _section("a person was asked", _refusals(self.asked), len(self.asked)) if self.asked else []
        return _section("not allowed", _refusals(self.denied), len(self.denied)) + asked

    def _lists(self) -> list[str]:
        lines: list[str] = []
        for title, counts in (("files written", self.written), ("programs run", self.programs)):
            lines += _section(title, _rows(counts), len(counts))
        targets = [target for target, _ in self.reached.most_common(_MOST)]
        reached = [
            row + self._named(target) + self._bytes(target)
            for row, target in zip(_rows(self.reached), targets, strict=True)
        ]
        return lines + _section("addresses reached", reached, len(self.reached))

    def _named(self, target: str) -> str:
        return f", that is {self.names[target]}" if self.names.get(target) else ""

    def _bytes(self, target: str) -> str:
        sent, received = self.traffic.get(target, (0, 0))
        return f", {sent:,} bytes sent, {received:,} received" if target in self.traffic else ""

    def _tree(self) -> list[str]:
        children: dict[int | None, list[Process]] = {}
        for process in self.processes.values():
            children.setdefault(self._parent(process), []).append(process)
        lines: list[str] = []
        waiting = [(0, process) for process in reversed(children.get(None, []))]
        while waiting and len(lines) < 2 * _MOST:
            depth, process = waiting.pop()
            lines.append(f"  {'  ' * depth}{process.pid} {' -> '.join(process.programs)}")
            waiting += [(depth + 1, child) for child in reversed(children.get(process.pid, []))]
        return _section("processes", lines, len(self.processes))


def _why(record: Fields) -> str:
    reason, rule = str(record.get("reason")), str(record.get("rule"))
    if record.get("verdict") == "ESCALATE":
        return f"rule `{rule}`"
    words = _REASONS.get(reason, reason)
    return f"{words} `{rule}`" if reason in _OF_A_RULE else words


def _refusals(counts: Counter[tuple[str, str, str]]) -> list[str]:
    return [
        f"  {kind} {target}: {why}" + (f" ({times:,} times)" if times > 1 else "")
        for (kind, target, why), times in counts.most_common(_MOST)
    ]


def _counted(counts: Counter[tuple[str, str, str]]) -> list[Json]:
    return [
        {"operation": kind, "target": target, "why": why, "times": times}
        for (kind, target, why), times in counts.most_common()
    ]


def _rows(counts: Counter[str]) -> list[str]:
    return [f"  {name}" + (f" ({times:,} times)" if times > 1 else "") for name, times in counts.most_common(_MOST)]


def _section(title: str, rows: list[str], count: int) -> list[str]:
    if not rows:
        return [f"{title}: none"]
    more = [f"  … and {count - len(rows):,} more; `--json` has all"] if count > len(rows) else []
    return [f"{title}:", *rows, *more]


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
