"""`external_receipt_chain.v1`: what a host observed, as a signed chain that HELM AI Kernel verifies. Pure.

A receipt is hashed with `receipt_hash` empty and `signature` absent, signed with the hash filled in, and linked to the
one before by `prev_receipt_hash`. Members of the chain itself are not signed, so every receipt repeats what matters.
"""

import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.errors import VerificationError
from helm_sentry.evidence.jcs import dumps, loads
from helm_sentry.evidence.serial import ZERO_TIME, digest, printed_time, pruned
from helm_sentry.receipt.keys import PublicKey, SigningKey

CHAIN_SCHEMA, RECEIPT_SCHEMA = "external_receipt_chain.v1", "external_host_receipt.v1"
VENDOR, PROFILE = "helm-sentry", "external-evidence-receipt-profile-v0.1"
MAX_LINE = 64 * 1024
"""HELM reads JSONL lines shorter than this."""

END = "receipts"
"""Member of the last receipt's `metadata` that says how many receipts there are, so that a cut tail is seen."""

HOSTS = "destination_hosts"
"""Member of an event's `correlation_hints`: names of the destination, where it has several."""

_TEXTS, _MAP = "texts", "map"
_EVENT: dict[str, type | str] = {
    **dict.fromkeys(("event_id", "attempt_id", "action_id", "direction", "source_ip"), str),
    **dict.fromkeys(("destination_ip", "destination_host", "protocol", "verdict", "observed_by", "timestamp"), str),
    **dict.fromkeys(("destination_port", "bytes_sent", "bytes_received"), int),
    "correlation_hints": _MAP,
}
_ACTION: dict[str, type | str] = {
    **dict.fromkeys(("action_id", "tool_name", "target_ref", "transport", "params_hash", "output_hash"), str),
    **dict.fromkeys(("side_effect_class", "reversibility", "decision", "timestamp"), str),
    "result_count": int,
}
_RECEIPT: dict[str, type | str] = {
    **dict.fromkeys(("schema_version", "receipt_id", "source_vendor", "source_profile", "host_id"), str),
    **dict.fromkeys(("process_identity", "agent_id", "workload_id", "sandbox_lease_id", "event_kind"), str),
    **dict.fromkeys(("receipt_hash", "prev_receipt_hash", "signing_key_id", "signature_algorithm", "signature"), str),
    **dict.fromkeys(("public_key_ref", "verifier_profile", "recorded_at"), str),
    "process_ancestry": _TEXTS,
    "metadata": _MAP,
}
_ZERO_EVENT: Fields = {"destination_ip": "", "destination_port": 0, "protocol": "", "timestamp": ZERO_TIME}


@dataclass(frozen=True, slots=True)
class HostChain:
    """A chain that was verified: its receipts as they are hashed, each with its hash.

    Attributes:
        receipts: in order.
        chain_hash: hash over all of their hashes.
        open_ended: nothing in it says how many receipts it has, so its tail may have been cut.
    """

    receipts: tuple[Fields, ...]
    chain_hash: str
    open_ended: bool


def build(chain_id: str, created_at: str, receipts: Sequence[Fields], key: SigningKey) -> Fields:
    """Return a whole chain.

    Args:
        chain_id: names the chain.
        created_at: RFC 3339 time.
        receipts: members that differ: `receipt_id`, `host_id`, `recorded_at`, `event` or `action_event`, and so on.
        key: signs all of them.
    """
    signed: list[Json] = []
    hashes: list[str] = []
    for receipt in receipts:
        made = _sign(receipt, hashes[-1] if hashes else "", key)
        hashes.append(str(made["receipt_hash"]))
        signed.append(made)
    return {
        "schema_version": CHAIN_SCHEMA,
        "chain_id": chain_id,
        "source_vendor": VENDOR,
        "source_profile": PROFILE,
        "created_at": created_at,
        "receipt_chain_hash": chain_hash(hashes),
        "public_keys": [{"key_id": key.public.id, "algorithm": "Ed25519", "public_key_hex": key.public.data.hex()}],
        "receipts": signed,
    }


def chain_hash(hashes: Sequence[str]) -> str:
    """Return the hash of a chain from its receipts' hashes."""
    return "sha256:" + hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def preimage(receipt: Fields, schema: str = "", vendor: str = "", profile: str = "") -> Fields:
    """Return what HELM hashes for a receipt, whatever members were written: `receipt_hash` empty, no `signature`.

    Args:
        receipt: as it was read.
        schema: stands in when the receipt has no `schema_version`.
        vendor: the chain's `source_vendor`, which stands in for the receipt's own.
        profile: the chain's `source_profile`, likewise.

    Raises:
        ValueError: a member has the wrong type, or the receipt is of a kind that cannot be verified.
    """
    if receipt.get("hardware_root"):
        raise ValueError("`hardware_root` can be checked by nobody, so a receipt with one is refused")
    if receipt.get("signed_payload_b64"):
        raise ValueError("a receipt of another vendor's format (`signed_payload_b64`) cannot be verified")
    fields = _known(receipt, _RECEIPT)
    fields["schema_version"] = fields.get("schema_version") or schema or RECEIPT_SCHEMA
    fields["source_vendor"] = fields.get("source_vendor") or vendor
    fields["source_profile"] = fields.get("source_profile") or profile
    fields["recorded_at"] = printed_time(fields.get("recorded_at"))
    fields["event"] = _event(receipt.get("event"))
    if receipt.get("action_event") is not None:
        fields["action_event"] = _action(receipt["action_event"])
    fields["receipt_hash"] = ""
    fields.pop("signature", None)
    always = ("receipt_hash", "receipt_id", "host_id", "schema_version", "recorded_at", "event", "action_event")
    return pruned(fields, always)


def verify(data: bytes, key: PublicKey) -> HostChain:
    """Return the chain in a file: a chain object, an array, one receipt, or a receipt a line.

    Raises:
        VerificationError: it is not one, or not what `key` signed; names the first bad receipt, counted from 1.
    """
    chain, receipts = _read(data)
    schema, vendor, profile = "", str(chain.get("source_vendor", "")), str(chain.get("source_profile", ""))
    checked: list[Fields] = []
    for number, receipt in enumerate(receipts, 1):
        try:
            checked.append(_check(receipt, preimage(receipt, schema, vendor, profile), key))
        except ValueError as error:
            raise VerificationError(f"receipt {number} of the host chain: {error}") from error
    for number, (before, after) in enumerate(pairwise(checked), 2):
        if after.get("prev_receipt_hash", "") != before["receipt_hash"]:
            raise VerificationError(f"receipt {number} of the host chain: it does not follow receipt {number - 1}")
    whole = chain_hash([str(receipt["receipt_hash"]) for receipt in checked])
    if chain and chain.get("receipt_chain_hash") != whole:
        raise VerificationError("the host chain: `receipt_chain_hash` is not that of its receipts")
    return HostChain(tuple(checked), whole, _counted(checked[-1]) != str(len(checked)))


def _sign(receipt: Fields, previous: str, key: SigningKey) -> Fields:
    wire: Fields = {
        "schema_version": RECEIPT_SCHEMA,
        "source_vendor": VENDOR,
        "source_profile": PROFILE,
        "verifier_profile": PROFILE,
        "signing_key_id": key.public.id,
        "signature_algorithm": "Ed25519",
        **({"prev_receipt_hash": previous} if previous else {}),
        **receipt,
    }
    hashed = preimage(wire)
    wire["receipt_hash"] = hashed["receipt_hash"] = digest(hashed)
    wire["signature"] = key.sign(dumps(hashed)).hex()
    return wire


def _check(receipt: Fields, hashed: Fields, key: PublicKey) -> Fields:
    _check_schema(hashed)
    if digest(hashed) != receipt.get("receipt_hash"):
        raise ValueError("its hash is not that of its contents")
    hashed["receipt_hash"] = receipt["receipt_hash"]
    if str(hashed.get("signature_algorithm", "")).lower() != "ed25519":
        raise ValueError("only Ed25519 signatures can be checked")
    if not key.verify_signature(dumps(hashed), _signature(str(receipt.get("signature", "")))):
        raise ValueError(f"its signature is not by key `{key.id}` over its contents")
    return hashed


def _signature(text: str) -> bytes:
    """Return a signature, which HELM takes in hex or in base64; nothing for what is neither."""
    for read in (bytes.fromhex, partial(base64.b64decode, validate=True)):
        with suppress(ValueError):
            return read(text)
    return b""


def _counted(last: Fields) -> Json:
    metadata = last.get("metadata")
    return metadata.get(END) if isinstance(metadata, dict) else None


def _check_schema(fields: Fields) -> None:
    event, action = _fields(fields["event"]), fields.get("action_event")
    if fields["schema_version"] != RECEIPT_SCHEMA:
        raise ValueError(f"`{fields['schema_version']}` is not a schema of this version")
    if not fields.get("receipt_id") or not fields.get("host_id"):
        raise ValueError("`receipt_id` and `host_id` are needed")
    if fields.get("event_kind", "network_egress") == "action_effect":
        if not isinstance(action, dict) or not action["action_id"] or not action["tool_name"]:
            raise ValueError("an action effect needs `action_event` with `action_id` and `tool_name`")
        return
    if not event["destination_ip"] and not event.get("destination_host"):
        raise ValueError("a network event needs a destination")
    port = event["destination_port"]
    if not isinstance(port, int) or not 1 <= port <= 65535 or not event["protocol"] or event["timestamp"] == ZERO_TIME:
        raise ValueError("a network event needs a port, a protocol and a time")


def _event(value: Json) -> Fields:
    if value is None:
        return dict(_ZERO_EVENT)
    event = _known(value, _EVENT)
    event["timestamp"] = printed_time(event.get("timestamp"))
    return pruned(_ZERO_EVENT | event, _ZERO_EVENT)


def _action(value: Json) -> Fields:
    action = _known(value, _ACTION)
    action["timestamp"] = printed_time(action.get("timestamp"))
    return pruned({"action_id": "", "tool_name": "", **action}, ("action_id", "tool_name", "timestamp"))


def _known(value: Json, members: dict[str, type | str]) -> Fields:
    """Return the members that HELM's structure has; the others are not authenticated by anything."""
    fields = _fields(value)
    return {name: _typed(name, fields[name], kind) for name, kind in members.items() if fields.get(name) is not None}


def _typed(name: str, value: Json, kind: type | str) -> Json:
    texts: list[Any] | None = None
    if kind is _TEXTS and isinstance(value, list):
        texts = value
    elif kind is _MAP and isinstance(value, dict):
        texts = list(value.values())
    if type(value) is kind or (texts is not None and all(isinstance(text, str) for text in texts)):
        return value
    raise ValueError(f"`{name}` has the wrong type")


def _fields(value: Json) -> Fields:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _read(data: bytes) -> tuple[Fields, list[Fields]]:
    """Return the chain object, empty where there is none, and the receipts."""
    try:
        value = _lines(data) if _is_lines(data) else loads(data)
        if isinstance(value, list):
            chain: Fields = {}
        else:
            chain = _fields(value)
            value = chain.get("receipts", [value])
            chain = chain if "receipts" in chain else {}
        receipts = [_fields(receipt) for receipt in value] if isinstance(value, list) else []
    except ValueError as error:
        raise VerificationError(f"not a host chain: {error}") from error
    if not receipts or (chain and chain.get("schema_version") != CHAIN_SCHEMA):
        raise VerificationError("not a host chain: it has no receipts, or a schema of another version")
    return chain, receipts


def _is_lines(data: bytes) -> bool:
    first, newline, rest = data.strip().partition(b"\n")
    return bool(newline) and bool(rest.strip()) and first.startswith(b"{") and first.rstrip().endswith(b"}")


def _lines(data: bytes) -> list[Json]:
    lines = [line for line in data.split(b"\n") if line.strip()]
    if any(len(line) >= MAX_LINE for line in lines):
        raise ValueError(f"a line of {MAX_LINE} bytes or more")
    return [loads(line) for line in lines]
