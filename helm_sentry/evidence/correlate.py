"""What a host observed against what HELM AI Kernel decided. Pure: a verified chain and verified intents go in.

Each host event is given to the intent that fits it best, not the first that fits at all: the same destination counts
for more than the same identity, that for more than the same process, and then it counts how much was stated about the
place. Between equals, one decided before the event goes before one that came after it, then the nearer in time, then a
refusal. What the host refused is read as refused. Volume is summed over all the events of an intent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from helm_sentry.audit.canonical import Fields
from helm_sentry.evidence.host_chain import HOSTS, HostChain
from helm_sentry.evidence.intents import Intent, destination
from helm_sentry.evidence.serial import digest, seconds_of

WINDOW = 300.0
"""Seconds between an intent and an event that nothing but destination and time connects."""

_SKEW = 1.0
"""Seconds by which the clock of whoever decided may be ahead."""

_REFUSED = frozenset({"BLOCK", "BLOCKED", "DENY", "DENIED", "DROPPED", "ESCALATE", "REFUSED", "REJECTED"})


class Status(StrEnum):
    """What came of a host event, or of an intent without one."""

    CORRELATED = "CORRELATED"
    CONFIRMED = "ENFORCEMENT_CONFIRMED"
    """HELM refused it, and so did the host."""
    BLOCKED = "HOST_BLOCKED_WITHOUT_INTENT"
    """The host refused what HELM never heard of."""
    MISSING = "MISSING_HOST_RECEIPT"
    UNCORRELATED = "UNCORRELATED_HOST_EGRESS"
    UNBOUND = "UNCORRELATED_HOST_ACTION"
    AFTER_DENY = "POLICY_DENIED_BUT_HOST_OBSERVED_EGRESS"
    MISMATCH = "DESTINATION_MISMATCH"
    VOLUME = "VOLUME_EXCEEDED"
    STOPPED = "POLICY_ALLOWED_BUT_HOST_BLOCKED"


_DRIFT = {
    Status.UNCORRELATED: "ERR_HOST_EGRESS_WITHOUT_INTENT",
    Status.UNBOUND: "ERR_HOST_PROCESS_UNBOUND",
    Status.AFTER_DENY: "ERR_HOST_EGRESS_AFTER_DENY",
    Status.MISMATCH: "ERR_HOST_DESTINATION_MISMATCH",
    Status.VOLUME: "ERR_HOST_VOLUME_EXCEEDED",
    Status.STOPPED: "SANDBOX_VIOLATION",  # the registry has no code of its own for it: what the host found
}
_CODES = {**_DRIFT, Status.MISSING: "ERR_HOST_RECEIPT_MISSING"}


@dataclass(frozen=True, slots=True)
class Event:
    """A host receipt, read for comparison.

    Attributes:
        id: of the receipt.
        hash: of the receipt.
        network: it is about traffic.
        happened: the host let it take effect.
        time: seconds since the epoch.
        identities: as of an intent.
        processes: identities of the process and its ancestors.
        destination: as of an intent; empty for a file or a program.
        hosts: names of the destination.
        target: reference to a file, a program or an address; empty for traffic.
        bytes: sent and received.
        exact: nothing more left than was counted.
        again: the same receipt has told another event before.
    """

    id: str
    hash: str
    network: bool
    happened: bool
    time: float
    identities: dict[str, str]
    processes: frozenset[str]
    destination: dict[str, str]
    hosts: frozenset[str]
    target: str
    bytes: int
    exact: bool
    again: bool = False

    @property
    def what(self) -> str:
        """Where it went or what it was done to."""
        where = self.destination
        place = where.get("ip") or " ".join(sorted(self.hosts))
        return self.target or f"{place}:{where.get('port')}/{where.get('protocol')}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a correlation."""

    status: Status
    event: Event | None
    intent: Intent | None
    confidence: float = 0.0
    detail: str = ""

    @property
    def drift(self) -> bool:
        """Whether host and HELM disagree."""
        return self.status in _DRIFT

    @property
    def drift_of(self) -> tuple[str, str, str]:
        """What tells one drift from another."""
        return self.status, self.event.what if self.event else "", self.intent.id if self.intent else ""

    def fields(self) -> Fields:
        """Return the finding as JSON."""
        return {
            "schema_version": "host_correlation_result.v1",
            "status": str(self.status),
            "reason_code": _CODES.get(self.status, ""),
            "drift": self.drift,
            "host_receipt_id": self.event.id if self.event else "",
            "host_receipt_hash": self.event.hash if self.event else "",
            "helm_receipt_id": self.intent.id if self.intent else "",
            "helm_metadata_bound": self.intent.bound if self.intent else False,
            "target": self.event.what if self.event else "",
            "confidence_percent": round(self.confidence * 100),
            "detail": self.detail,
        }


def correlate(chains: Sequence[HostChain], intents: Sequence[Intent], window: float = WINDOW) -> list[Finding]:
    """Return what came of every host event, in order, and then of every intent that no event belongs to."""
    used: dict[int, _Volume] = {}
    findings = [
        found
        for receipt in {
            str(receipt["receipt_hash"]): receipt for chain in chains for receipt in chain.receipts
        }.values()
        for found in _worth([_find(event, intents, window, used) for event in _events(receipt)])
    ]
    unseen = (intent for number, intent in enumerate(intents) if number not in used and not intent.denied)
    return findings + [Finding(Status.MISSING, None, intent) for intent in unseen if intent.network or intent.target]


def _find(event: Event, intents: Sequence[Intent], window: float, used: dict[int, "_Volume"]) -> Finding:
    fitting = [
        (score, number) for number, intent in enumerate(intents) if (score := _score(event, intent, window)) is not None
    ]
    if not fitting:
        lost = Status.UNCORRELATED if event.network else Status.UNBOUND
        return Finding(lost if event.happened else Status.BLOCKED, event, None)
    best, number = max(fitting, key=lambda pair: pair[0])
    return _judge(event, intents[number], best, used.setdefault(number, _Volume()))


def _worth(findings: Sequence[Finding]) -> list[Finding]:
    """Return the first finding of a receipt, and of the others those that say something else went wrong."""
    kept = [findings[0]]
    for found in findings[1:]:
        if found.drift and all(found.drift_of != other.drift_of for other in kept):
            kept.append(found)
    return kept


def drift_receipt(finding: Finding, detected_at: str) -> Fields:
    """Return the `boundary_drift_receipt.v1` of a finding; to be signed."""
    stated = finding.fields()
    name = f"{stated['host_receipt_hash']}{stated['helm_receipt_id']}{stated['reason_code']}"
    if finding.event and finding.event.again:  # of the same receipt, so the name would be the same
        name += f"{finding.event.what}{finding.event.time}"
    fields: Fields = {
        "schema_version": "boundary_drift_receipt.v1",
        "receipt_id": f"boundary_drift:{sha256(name.encode()).hexdigest()[:16]}",
        "type": "BOUNDARY_DRIFT",
        "severity": "medium" if finding.status is Status.STOPPED else "high",
        "detected_at": detected_at,
        **{key: value for key, value in stated.items() if key not in ("schema_version", "drift")},
        "receipt_hash": "",
    }
    return fields | {"receipt_hash": digest(fields)}


@dataclass(slots=True)
class _Volume:
    total: int = 0


class _Score(NamedTuple):
    """How well an intent fits an event; the larger, the better."""

    place: int  # 2 the same, 1 unknown, 0 another
    confidence: float
    stated: int  # how much the intent says about the place
    before: bool
    nearness: float
    denied: bool


def _judge(event: Event, intent: Intent, score: _Score, volume: _Volume) -> Finding:
    def found(status: Status, detail: str = "") -> Finding:
        return Finding(status, event, intent, score.confidence, detail)

    if not score.place and not event.happened:
        return found(Status.BLOCKED, f"HELM decided about {_where(intent)}")
    if intent.denied:
        return found(Status.AFTER_DENY if event.happened else Status.CONFIRMED)
    if not score.place:
        return found(Status.MISMATCH, f"HELM decided about {_where(intent)}")
    if not event.happened:
        return found(Status.STOPPED)
    volume.total += event.bytes
    over = intent.most_bytes is not None and volume.total > intent.most_bytes
    if over or (intent.most_bytes is not None and not event.exact):
        counted = f"{volume.total} of {intent.most_bytes} bytes"
        return found(Status.VOLUME, counted if over else f"at least {counted}, and more cannot be ruled out")
    return found(Status.CORRELATED, "" if score.before else f"HELM decided {-score.nearness:.0f} s after it happened")


def _score(event: Event, intent: Intent, window: float) -> _Score | None:
    """Return how well an intent fits, or nothing when it does not."""
    place = _place(event, intent)
    if place is None:
        return None
    shared = [name for name in event.identities if name in intent.identities]
    same = any(event.identities[name] == intent.identities[name] for name in shared)
    apart = abs(event.time - intent.time)
    if same:
        confidence = 1.0
    elif shared:  # somebody else's
        return None
    elif intent.process and intent.process in event.processes:
        confidence = 0.85
    elif place[0] == 2 and apart <= window:
        confidence = 0.65
    else:
        return None
    return _Score(place[0], confidence, place[1], intent.time <= event.time + _SKEW, -apart, intent.denied)


def _place(event: Event, intent: Intent) -> tuple[int, int] | None:
    """Return 2 for the same place, 1 when nothing can be compared, 0 for another; and how much the intent says of it.

    None for another kind of act.
    """
    if not event.destination:
        return None if intent.network else _object(event, intent)
    if not intent.network:
        return None
    shared = [name for name in event.destination if name in intent.destination]
    same = all(event.destination[name] == intent.destination[name] for name in shared)
    host = intent.destination.get("host", "")
    named = bool(host and event.hosts)
    if not same or (named and host not in event.hosts):
        return 0, 0
    return (2, len(shared) + named) if named or "ip" in shared else (1, 0)


def _object(event: Event, intent: Intent) -> tuple[int, int] | None:
    if not intent.target:
        return 1, 0
    beneath = intent.target.endswith("/") and event.target.startswith(intent.target)
    if event.target == intent.target:
        return 2, len(intent.target) + 1
    return (2, len(intent.target)) if beneath else None


def _events(receipt: Fields) -> list[Event]:
    """Return what a receipt tells: one event, or for an act on two objects, or one done again later, several."""
    first = _event(receipt)
    metadata = _map(receipt.get("metadata"))
    found = [first]
    if not first.network:
        found += [replace(first, **_at(str(to)), again=True) for to in [metadata.get("to")] if to]
        last = metadata.get("last")
        found += [replace(one, time=seconds_of(str(last)), again=True) for one in found] if last else []
    return found


def _at(target: str) -> dict[str, Any]:
    """Return the members of an event that say what an act was done to."""
    if not target.startswith("net:"):
        return {"target": target, "destination": {}}
    ip, _, port = target.removeprefix("net:").rpartition(":")
    return {"target": target, "destination": {"ip": ip.strip("[]").lower(), "port": port}}


def _event(receipt: Fields) -> Event:
    action, seen, metadata = (_map(receipt.get(name)) for name in ("action_event", "event", "metadata"))
    network = receipt.get("event_kind") != "action_effect"
    decided = str(seen.get("verdict", "") if network else action.get("decision", "")).upper()
    names = {name: str(receipt.get(name, "")) for name in ("workload_id", "sandbox_lease_id", "agent_id")}
    went = destination(seen)
    hosts = [went.pop("host", ""), *str(_map(seen.get("correlation_hints")).get(HOSTS, "")).lower().split()]
    place = {"target": "", "destination": went} if network else _at(str(action.get("target_ref", "")))
    return Event(
        id=str(receipt["receipt_id"]),
        hash=str(receipt["receipt_hash"]),
        network=network,
        happened=decided not in _REFUSED,
        time=seconds_of(str(seen["timestamp"] if network else action["timestamp"])),
        identities={name: value for name, value in names.items() if value},
        processes=frozenset(
            {str(receipt.get("process_identity", "")), *map(str, _texts(receipt.get("process_ancestry")))} - {""}
        ),
        hosts=frozenset(hosts) - {""},
        bytes=_int(seen.get("bytes_sent")) + _int(seen.get("bytes_received")),
        exact=metadata.get("exact") != "false",
        **place,
    )


def _where(intent: Intent) -> str:
    return intent.target or ":".join(intent.destination.values()) or "something else"


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _map(value: object) -> Fields:
    return value if isinstance(value, dict) else {}
