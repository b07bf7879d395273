"""`receipt.v5`: HELM AI Kernel's receipt of one decision, and chains of them. Pure.

Thirteen members are signed; the rest is carried. The hash that the next receipt holds covers more than the signature
does, so only the last receipt of a chain has unsigned members that nothing vouches for.
"""

from collections.abc import Collection, Sequence

from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.errors import VerificationError
from helm_sentry.evidence.jcs import dumps
from helm_sentry.evidence.serial import ZERO_TIME, bare_digest, printed_time, pruned
from helm_sentry.receipt.keys import PublicKey, SigningKey

VERSION = "receipt.v5"
SIGNED = (
    *("signature_version", "receipt_id", "decision_id", "effect_id", "status", "output_hash", "prev_hash"),
    *("lamport_clock", "args_hash", "verdict", "reason_code", "policy_hash", "session_id"),
)
"""Members that are signed. All are present, even when they are empty."""

_TIMES = ("timestamp", "created_at", "installed_at", "issued_at")
_ALWAYS = (
    *("receipt_id", "decision_id", "effect_id", "external_reference_id", "status", "prev_hash", "lamport_clock"),
    *_TIMES,
)
_NOT_CHAINED = ("transparency", "log_id", "leaf_index")
_LARGEST = 2**53 - 1


def build(receipts: Sequence[Fields], session: str, policy_hash: str, key: SigningKey) -> list[Fields]:
    """Return a chain: the first has no `prev_hash` and clock 1, each other follows the one before.

    Args:
        receipts: members that differ, among them `receipt_id`, `decision_id`, `effect_id`, `verdict`, `timestamp`.
        session: `session_id` of all.
        policy_hash: `policy_hash` of all.
        key: signs.
    """
    chain: list[Fields] = []
    previous = ""
    for clock, receipt in enumerate(receipts, 1):
        filled: Fields = {
            **dict.fromkeys(SIGNED, ""),
            "external_reference_id": "",
            **dict.fromkeys(_TIMES, ZERO_TIME),
            "status": receipt["verdict"],
            "key_id": key.public.id,
            **receipt,
            "signature_version": VERSION,
            "session_id": session,
            "policy_hash": policy_hash,
            "prev_hash": previous,
            "lamport_clock": clock,
            "public_key_set": {"ed25519": key.public.data.hex()},
            "signature_algorithm": "ed25519",
            "signature_profile": "classical",
        }
        filled["signature"] = key.sign(dumps(signed_members(filled))).hex()
        chain.append(filled)
        previous = chain_hash(filled)
    return chain


def signed_members(receipt: Fields) -> Fields:
    """Return the object that is signed.

    Raises:
        ValueError: a member is missing or is not of its type; the name of the fault is HELM's own.
    """
    missing = [name for name in SIGNED if name not in receipt]
    if missing:
        raise ValueError(f"contract_mismatch: `{missing[0]}` is missing")
    clock = receipt["lamport_clock"]
    if type(clock) is not int or not 0 <= clock <= _LARGEST:
        raise ValueError("non_interoperable_number: `lamport_clock` is not an integer that every reader keeps")
    for name in SIGNED:
        if name != "lamport_clock" and not isinstance(receipt[name], str):
            raise ValueError(f"contract_mismatch: `{name}` is not text")
    return {name: receipt[name] for name in SIGNED}


def chain_hash(receipt: Fields) -> str:
    """Return what the next receipt's `prev_hash` must hold.

    Raises:
        ValueError: a time cannot be read.
    """
    view: Fields = {name: value for name, value in receipt.items() if name not in _NOT_CHAINED}
    view |= {name: view.get(name, "") for name in _ALWAYS if name not in _TIMES}
    view |= {name: printed_time(view.get(name)) for name in _TIMES}
    return bare_digest(pruned(view, _ALWAYS))


def verify(receipt: Fields, keys: Collection[PublicKey]) -> None:
    """Require that one of the keys signed a receipt. Keys inside it are not looked at.

    Raises:
        VerificationError: it is not a receipt of this version, or nobody among `keys` signed it.
    """
    name = receipt.get("receipt_id")
    try:
        if receipt.get("signature_version") != VERSION:
            raise ValueError(f"contract_mismatch: not a `{VERSION}`")
        kind = (receipt.get("signature_profile") or "", receipt.get("signature_algorithm") or "")
        if kind not in (("", ""), ("classical", "ed25519")):
            raise ValueError("contract_mismatch: another kind of signature")
        message = dumps(signed_members(receipt))
        signature = bytes.fromhex(_text(receipt.get("signature")))
        if not any(key.verify_signature(message, signature) for key in keys):
            raise ValueError("signature_rejected: not signed by a given key like this")
    except ValueError as error:
        raise VerificationError(f"HELM receipt `{name}`: {error}") from error


def verify_chain(receipts: Sequence[Fields], keys: Collection[PublicKey]) -> None:
    """Require that receipts are signed and that each follows the one before, session by session.

    Raises:
        VerificationError: names the first receipt that does not fit.
    """
    heads: dict[Json, tuple[str, int]] = {}
    for receipt in receipts:
        verify(receipt, keys)
        session = _text(receipt["session_id"])
        previous, clock = heads.get(session, ("", 0))
        if (receipt["prev_hash"], receipt["lamport_clock"]) != (previous, clock + 1):
            raise VerificationError(
                f"HELM receipt `{receipt['receipt_id']}`: closure: it does not follow the one before"
            )
        try:
            heads[session] = (chain_hash(receipt), clock + 1)
        except ValueError as error:
            raise VerificationError(f"HELM receipt `{receipt['receipt_id']}`: {error}") from error


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
