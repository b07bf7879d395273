"""What a run did and was refused, as acts worth a receipt. Pure: records go in.

Every refusal and every act that changes something or reaches somebody counts; reading what a rule lets an agent read
does not. The same act done again is one act with a number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from helm_sentry.audit.canonical import Fields
from helm_sentry.decision import Verdict
from helm_sentry.evidence import reasons
from helm_sentry.operation import Kind

_QUIET = frozenset({Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT, Kind.NET_SOCKET})
_IN_PROGRESS = "EINPROGRESS"


@dataclass(frozen=True, slots=True)
class Act:
    """One act, first of `count` alike.

    Attributes:
        seq: number of its first record.
        time: microseconds since the epoch, of the first.
        tool: `syscall:` and its name.
        kinds: of the operations it came to.
        target: object of the first.
        verdict: what was decided.
        code: HELM's reason code, empty for ALLOW.
        happened: it took effect: it was allowed, or the run was a dry one.
        hash: hash of the first record.
        record: the first record.
        count: how often.
        last: microseconds since the epoch, of the last.
    """

    seq: int
    time: int
    tool: str
    kinds: tuple[str, ...]
    target: str
    verdict: str
    code: str
    happened: bool
    hash: str
    record: Fields
    count: int = 1
    last: int = 0

    @property
    def effect(self) -> str:
        """How the act works on the world: `read`, `write`, `execute` or `network`."""
        kind = self.kinds[0]
        if kind == Kind.EXEC:
            return "execute"
        if kind.startswith(("net.", "unix.")):
            return "network"
        return "read" if kind in _QUIET else "write"


@dataclass(frozen=True, slots=True)
class Flow:
    """What left for one address: a traffic record, when it was let leave, and which names the address had then."""

    traffic: Fields
    decided: int
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """A run as evidence.

    Attributes:
        start: its first record.
        end: its last record.
        policy: the effective policy.
        acts: in the order of their first records.
        flows: in the order of their records.
    """

    start: Fields
    end: Fields
    policy: Fields
    acts: tuple[Act, ...]
    flows: tuple[Flow, ...]

    @property
    def run(self) -> str:
        """The run's id."""
        return str(self.start["run"])


def account(records: Iterable[Fields], policy: Fields) -> Account:
    """Return the account of a run from its verified records."""
    start: Fields = {}
    last: Fields = {}
    acts: dict[tuple[Any, ...], Act] = {}
    began: dict[Any, tuple[Any, ...]] = {}
    let: dict[Any, Act] = {}
    flows: list[Flow] = []
    for last in records:
        start = start or last
        match last["type"]:
            case "decision" if act := _act(last, start, bool(policy.get("allow"))):
                key = act.tool, act.kinds, act.target, last.get("to"), act.verdict, act.code, act.happened
                acts[key] = replace(acts[key], count=acts[key].count + 1, last=act.time) if key in acts else act
                if act.happened:
                    began[act.seq], let[act.seq] = key, act
            case "outcome" if last["of"] in began and last["errno"] != _IN_PROGRESS:
                key = began.pop(last["of"])
                acts[key] = replace(acts[key], count=acts[key].count - 1)
            case "traffic":
                flows.append(_flow(last, let.get(last["of"])))
    kept = sorted((act for act in acts.values() if act.count), key=lambda act: act.seq)
    return Account(start, last, policy, tuple(kept), tuple(flows))


def _flow(traffic: Fields, act: Act | None) -> Flow:
    if act is None:
        return Flow(traffic, _int(traffic, "time"))
    return Flow(traffic, act.time, tuple(map(str, _list(act.record.get("hosts")))))


def _act(record: Fields, start: Fields, has_rules: bool) -> Act | None:
    """Return the act of a decision, or nothing when it is not worth a receipt."""
    kinds, verdict = tuple(map(str, _list(record["ops"]))), str(record["verdict"])
    let = verdict == Verdict.ALLOW or start.get("enforcing") is False
    happened = let and record["action"] not in ("errno", "kill")
    if verdict == Verdict.ALLOW and (not happened or _QUIET.issuperset(kinds)):
        return None
    target = str(record["target"])
    return Act(
        seq=_int(record, "seq"),
        time=_int(record, "time"),
        tool=f"syscall:{record['syscall']}",
        kinds=kinds,
        target=target,
        verdict=verdict,
        code=reasons.code(verdict, str(record["reason"]), kinds, target, has_rules),
        happened=happened,
        hash=str(record["hash"]),
        record=record,
    )


def _int(fields: Mapping[str, Any], name: str) -> int:
    return int(fields[name])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
