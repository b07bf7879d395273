"""DSSE envelopes: signed bytes, carried in JSON. Pure.

The signature is over the PAE, never over JSON, so no payload is parsed that was not verified. Follows the
DSSE v1 protocol and envelope documents (secure-systems-lab/dsse).
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from helm_sentry.audit.canonical import Fields, Json, dumps, loads
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.helm-sentry.receipt+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: type and payload, each with its length so that neither runs over."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope.

    Attributes:
        keyid: which key made it; a hint that is itself not signed.
        data: the signature.
    """

    keyid: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures, not verified yet.

    Attributes:
        payload: the signed bytes. Use them only as `open` returns them.
        payload_type: what the payload is.
        signatures: in the order given.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Envelope":
        """Return the envelope in JSON text. Unknown members are ignored, as DSSE has it.

        Raises:
            VerificationError: not an envelope.
        """
        try:
            members = loads(data)
        except ValueError as error:
            raise VerificationError(f"not an envelope: {error}") from error
        payload_type = _member(members, "payloadType")
        signatures = members.get("signatures") if isinstance(members, dict) else None
        if not isinstance(signatures, list):
            raise VerificationError("not an envelope: `signatures` is not a list")
        return cls(_base64(_member(members, "payload")), payload_type, tuple(map(_signature, signatures)))

    def encode(self) -> bytes:
        """Return the one canonical form of the envelope, without a newline."""
        signatures: list[Json] = [
            {"keyid": signature.keyid, "sig": base64.b64encode(signature.data).decode()}
            for signature in self.signatures
        ]
        members: Fields = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": signatures,
        }
        return dumps(members)

    def open(self, keys: Mapping[str, PublicKey], payload_type: str = PAYLOAD_TYPE) -> bytes:
        """Return the payload if one of the keys, given by id, signed it. Other signatures do not matter.

        Raises:
            VerificationError: another type, an unknown signer, or a payload that was not signed like this.
        """
        if self.payload_type != payload_type:
            raise VerificationError(f"the envelope holds `{self.payload_type}`, not `{payload_type}`")
        message = pae(self.payload_type, self.payload)
        for signature in self.signatures:
            # The key id is a hint: a wrong or missing one costs time, it does not decide.
            candidates = [keys[signature.keyid]] if signature.keyid in keys else list(keys.values())
            if any(key.verify_signature(message, signature.data) for key in candidates):
                return self.payload
        if any(signature.keyid in keys for signature in self.signatures):
            raise VerificationError("the signature does not match the contents")
        signers = ", ".join(f"`{signature.keyid}`" for signature in self.signatures) or "nobody"
        raise VerificationError(f"signed by {signers}, not by {' or '.join(f'`{name}`' for name in keys)}")


def seal(payload: bytes, key: SigningKey) -> bytes:
    """Return the canonical envelope of a payload, signed."""
    signature = Signature(key.public.id, key.sign(pae(PAYLOAD_TYPE, payload)))
    return Envelope(payload, PAYLOAD_TYPE, (signature,)).encode()


def _signature(value: Json) -> Signature:
    # keyid is optional in DSSE; an empty one names no key.
    keyid = value.get("keyid", "") if isinstance(value, dict) else ""
    if not isinstance(keyid, str):
        raise VerificationError("not an envelope: `keyid` is not text")
    return Signature(keyid, _base64(_member(value, "sig")))


def _member(members: Json, name: str) -> str:
    value = members.get(name) if isinstance(members, dict) else None
    if not isinstance(value, str):
        raise VerificationError(f"not an envelope: `{name}` is missing or not text")
    return value


def _base64(text: str) -> bytes:
    # DSSE readers take the standard and the URL alphabet. Re-encoding refuses everything a lenient decoder
    # skips: white space, missing padding and stray bits in the last digit.
    try:
        data = base64.b64decode(text, altchars=b"-_" if "-" in text or "_" in text else None, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError(f"not an envelope: {error}") from error
    if text.encode() not in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        raise VerificationError("not an envelope: base64 with bits to spare")
    return data
