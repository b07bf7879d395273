"""What HELM AI Kernel says it decided, read from its receipts after they were verified. Pure."""

import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from helm_sentry.audit.canonical import Fields, Json, escape
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.evidence import receipt_v5
from helm_sentry.evidence.jcs import loads
from helm_sentry.evidence.serial import seconds_of
from helm_sentry.receipt.keys import PublicKey

_NETWORK_TYPES = frozenset(f"NETWORK_EGRESS_{word}" for word in ("ATTEMPT", "ALLOWED", "DENIED", "UNCORRELATED"))
_NETWORK_EFFECT = "WORKSTATION_NETWORK_EGRESS"
_REFUSED = frozenset({"BLOCK", "BLOCKED", "DENY", "DENIED", "ESCALATE", "ESCALATED", "REJECTED"})
_IDENTITIES = ("workload_id", "sandbox_lease_id", "agent_id")


@dataclass(frozen=True, slots=True)
class Intent:
    """One decision of HELM's.

    Attributes:
        id: of its receipt.
        denied: it was refused, or waits for a person.
        time: seconds since the epoch.
        network: it is about traffic.
        identities: `workload_id`, `sandbox_lease_id` and `agent_id`, those that are given.
        process: identity of the process it is for, or empty.
        destination: `ip`, `host`, `port` and `protocol`, those that are given, as text.
        target: reference to a file or a program, or empty; `/` at the end takes in what is beneath.
        most_bytes: how many bytes may go there and back, or None.
        bound: its unsigned members are held by the hash in the next receipt, so nobody changed them.
    """

    id: str
    denied: bool
    time: float
    network: bool
    identities: dict[str, str]
    process: str
    destination: dict[str, str]
    target: str
    most_bytes: int | None
    bound: bool


def read(data: bytes, keys: Collection[PublicKey], *, accept_unsigned: bool = False) -> list[Intent]:
    """Return the intents in a file: one receipt, a list, an object with `receipts`, or a receipt a line.

    Args:
        data: the file.
        keys: one of them must have signed each receipt.
        accept_unsigned: take receipts that nobody vouches for.

    Raises:
        VerificationError: they are not what was signed.
        UsageError: there is neither a key nor leave to go without.
    """
    receipts = _receipts(data)
    if not accept_unsigned:
        if not keys:
            raise UsageError(
                "whose receipts are these? pass --helm-key; --accept-unsigned-helm takes what anybody wrote"
            )
        receipts.sort(key=lambda receipt: (str(receipt.get("session_id")), _int(receipt.get("lamport_clock"))))
        receipt_v5.verify_chain(receipts, keys)
    followed = {receipt.get("prev_hash") for receipt in receipts}
    return [_intent(receipt, followed) for receipt in receipts]


def _receipts(data: bytes) -> list[Fields]:
    try:
        value = loads(data) if not _is_lines(data) else [loads(line) for line in data.split(b"\n") if line.strip()]
    except ValueError as error:
        raise VerificationError(f"HELM's receipts cannot be read: {error}") from error
    if isinstance(value, dict):
        value = value.get("receipts", [value])
    if not isinstance(value, list) or not all(isinstance(receipt, dict) for receipt in value):
        raise VerificationError("HELM's receipts cannot be read: not a list of receipts")
    return [receipt for receipt in value if isinstance(receipt, dict)]


def _is_lines(data: bytes) -> bool:
    first, _, rest = data.strip().partition(b"\n")
    return first.startswith(b"{") and first.rstrip().endswith(b"}") and bool(rest)


def _intent(receipt: Fields, followed: Collection[Json]) -> Intent:
    metadata = _map(receipt.get("metadata"))
    names = {name: str(metadata.get(name) or receipt.get(name) or "") for name in _IDENTITIES}
    names["agent_id"] = names["agent_id"] or str(receipt.get("executor_id") or "")
    words = {str(receipt.get(name) or "").upper() for name in ("verdict", "status")}
    try:
        return Intent(
            id=str(receipt.get("receipt_id")),
            denied=bool(words & _REFUSED) or receipt.get("reason_code") == "DATA_EGRESS_BLOCKED",
            time=seconds_of(str(receipt.get("timestamp"))),
            network=_is_network(receipt, metadata),
            identities={name: value for name, value in names.items() if value},
            process=str(metadata.get("process_identity") or ""),
            destination=destination(metadata),
            target=_target(metadata),
            most_bytes=int(str(most)) if (most := metadata.get("max_egress_bytes")) not in (None, "") else None,
            bound=receipt.get("signature_version") == receipt_v5.VERSION and receipt_v5.chain_hash(receipt) in followed,
        )
    except ValueError as error:
        raise VerificationError(f"HELM receipt `{receipt.get('receipt_id')}`: {error}") from error


def destination(fields: Fields) -> dict[str, str]:
    """Return where something goes: the parts of an address that are given, as comparable text."""
    parts = {name: fields.get(f"destination_{name}") for name in ("ip", "host", "port")}
    parts["protocol"] = fields.get("protocol")
    return {name: str(value).lower() for name, value in parts.items() if value}


def _is_network(receipt: Fields, metadata: Fields) -> bool:
    effect = str(receipt.get("effect_type") or metadata.get("effect_type") or "")
    name = str(receipt.get("effect_id") or "").upper()
    return receipt.get("type") in _NETWORK_TYPES or effect == _NETWORK_EFFECT or "NETWORK" in name or "EGRESS" in name


def _target(metadata: Fields) -> str:
    if metadata.get("target_ref") or not metadata.get("path"):
        return str(metadata.get("target_ref") or "")
    path = str(metadata["path"])
    whole = posixpath.normpath(path) + ("/" if path.endswith("/") and path.strip("/") else "")
    return f"file://{escape(whole)}"


def _int(value: Json) -> int:
    return value if type(value) is int else 0


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
