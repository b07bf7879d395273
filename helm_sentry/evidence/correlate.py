"""What a host observed against what HELM AI Kernel decided. Pure: a verified chain and verified intents go in.

Each host event is given to the intent that fits it best, not the first that fits at all: the same destination counts
for more than the same identity, that for more than the same process, and nearness in time decides between equals.
What the host refused is read as refused. Volume is summed over all the events of an intent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from helm_sentry.audit.canonical import Fields
from helm_sentry.evidence.host_chain import HostChain
from helm_sentry.evidence.intents import Intent, destination
from helm_sentry.evidence.serial import digest, seconds_of

WINDOW = 300.0
"""Seconds between an intent and an event that nothing but destination and time connects."""

_REFUSED = frozenset({"BLOCKED", "DENY", "DENIED", "ESCALATE"})


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
        target: reference to a file or a program; empty for traffic.
        bytes: sent and received.
        exact: nothing more left than was counted.
    """

    id: str
    hash: str
    network: bool
    happened: bool
    time: float
    identities: dict[str, str]
    processes: frozenset[str]
    destination: dict[str, str]
    target: str
    bytes: int
    exact: bool

    @property
    def what(self) -> str:
        """Where it went or what it was done to."""
        where = self.destination
        return self.target or f"{where.get('host') or where.get('ip')}:{where.get('port')}/{where.get('protocol')}"


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
    findings: list[Finding] = []
    used: dict[str, _Volume] = {}
    for event in (_event(receipt) for chain in chains for receipt in chain.receipts):
        fitting = [(score, intent) for intent in intents if (score := _score(event, intent, window))]
        best = max(fitting, key=lambda pair: pair[0], default=None)
        if best is None:
            lost = Status.UNCORRELATED if event.network else Status.UNBOUND
            findings.append(Finding(lost if event.happened else Status.BLOCKED, event, None))
            continue
        (same_place, confidence, _), intent = best
        findings.append(_judge(event, intent, same_place, confidence, used.setdefault(intent.id, _Volume())))
    unseen = (intent for intent in intents if intent.id not in used and not intent.denied)
    return findings + [Finding(Status.MISSING, None, intent) for intent in unseen if intent.network or intent.target]


def drift_receipt(finding: Finding, detected_at: str) -> Fields:
    """Return the `boundary_drift_receipt.v1` of a finding; to be signed."""
    stated = finding.fields()
    name = f"{stated['host_receipt_hash']}{stated['helm_receipt_id']}{stated['reason_code']}"
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
    exceeded: bool = field(default=False)


def _judge(event: Event, intent: Intent, same_place: int, confidence: float, volume: _Volume) -> Finding:
    def found(status: Status, detail: str = "") -> Finding:
        return Finding(status, event, intent, confidence, detail)

    if intent.denied:
        return found(Status.AFTER_DENY if event.happened else Status.CONFIRMED)
    if not same_place:
        return found(Status.MISMATCH if event.happened else Status.BLOCKED, f"HELM decided about {_where(intent)}")
    if not event.happened:
        return found(Status.STOPPED)
    volume.total += event.bytes
    if intent.most_bytes is not None and not volume.exceeded:
        exact = event.exact or volume.total > intent.most_bytes
        if volume.total > intent.most_bytes or not exact:
            volume.exceeded = True
            counted = f"{volume.total} of {intent.most_bytes} bytes"
            return found(Status.VOLUME, counted if exact else f"at least {counted}, and more cannot be ruled out")
    return found(Status.CORRELATED)


def _score(event: Event, intent: Intent, window: float) -> tuple[int, float, float] | None:
    """Return how well an intent fits: place (2 the same, 1 unknown, 0 another), confidence, nearness."""
    place = _place(event, intent)
    if place is None:
        return None
    shared = [name for name in event.identities if name in intent.identities]
    same = any(event.identities[name] == intent.identities[name] for name in shared)
    near = -abs(event.time - intent.time)
    if same:
        return place, 1.0, near
    if shared:  # somebody else's
        return None
    if intent.process and intent.process in event.processes:
        return place, 0.85, near
    return (place, 0.65, near) if place == 2 and -near <= window else None


def _place(event: Event, intent: Intent) -> int | None:
    """Return 2 for the same place, 1 when nothing can be compared, 0 for another; None for another kind of act."""
    if event.network:
        if not intent.network:
            return None
        shared = [name for name in event.destination if name in intent.destination]
        if not {"ip", "host"} & set(shared):
            return 1 if all(event.destination[name] == intent.destination[name] for name in shared) else 0
        return 2 if all(event.destination[name] == intent.destination[name] for name in shared) else 0
    if intent.network and not event.target.startswith("net:"):
        return None
    if event.target.startswith("net:"):
        wanted = intent.destination
        return 2 if event.target == f"net:{wanted.get('ip')}:{wanted.get('port')}" else None
    if not intent.target:
        return 1
    beneath = intent.target.endswith("/") and event.target.startswith(intent.target)
    return 2 if beneath or event.target == intent.target else None


def _event(receipt: Fields) -> Event:
    action, seen, metadata = (_map(receipt.get(name)) for name in ("action_event", "event", "metadata"))
    network = not action
    decided = str(seen.get("verdict", "") if network else action.get("decision", "")).upper()
    names = {name: str(receipt.get(name, "")) for name in ("workload_id", "sandbox_lease_id", "agent_id")}
    ancestry = receipt.get("process_ancestry")
    return Event(
        id=str(receipt["receipt_id"]),
        hash=str(receipt["receipt_hash"]),
        network=network,
        happened=decided not in _REFUSED,
        time=seconds_of(str(seen["timestamp"] if network else action["timestamp"])),
        identities={name: value for name, value in names.items() if value},
        processes=frozenset({str(receipt.get("process_identity", "")), *map(str, _texts(ancestry))} - {""}),
        destination=destination(seen) if network else {},
        target="" if network else str(action.get("target_ref", "")),
        bytes=_int(seen.get("bytes_sent")) + _int(seen.get("bytes_received")),
        exact=metadata.get("exact") != "false",
    )


def _where(intent: Intent) -> str:
    return intent.target or ":".join(intent.destination.values()) or "something else"


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _map(value: object) -> Fields:
    return value if isinstance(value, dict) else {}
