"""Signed envelopes for what HELM AI Kernel exports unsigned: DSSE, in-toto statements, envelope manifests. Pure."""

from collections.abc import Mapping

from helm_sentry.audit.canonical import Fields, dumps, loads
from helm_sentry.errors import VerificationError
from helm_sentry.evidence.serial import data_digest, digest
from helm_sentry.receipt.envelope import Envelope, Signature, pae
from helm_sentry.receipt.keys import PublicKey, SigningKey

IN_TOTO = "application/vnd.in-toto+json"
EVIDENCE_ROOT = "application/vnd.helm.evidence-root.v1+json"
DRIFT = "application/vnd.helm-sentry.boundary-drift+json"
CONFORMANCE = "application/vnd.helm-sentry.conformance+json"
STATEMENT_TYPE, PREDICATE_TYPE = "https://in-toto.io/Statement/v1", "urn:helm-sentry:run:v1"


def sign(payload_type: str, payload: Fields, key: SigningKey) -> bytes:
    """Return the DSSE envelope of a payload's canonical bytes."""
    body = dumps(payload)
    return Envelope(body, payload_type, (Signature(key.public.id, key.sign(pae(payload_type, body))),)).encode()


def opened(envelope: bytes, payload_type: str, key: PublicKey) -> Fields:
    """Return the payload of an envelope that `key` signed.

    Raises:
        VerificationError: it did not, or the payload is of another type.
    """
    try:
        payload = loads(Envelope.parse(envelope).open({key.id: key}, payload_type))
    except ValueError as error:
        raise VerificationError(f"the payload cannot be read: {error}") from error
    if not isinstance(payload, dict):
        raise VerificationError("the payload is not an object")
    return payload


def in_toto(subjects: Mapping[str, bytes], predicate: Fields) -> Fields:
    """Return an in-toto statement about files, given by name."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": data_digest(data).removeprefix("sha256:")}}
            for name, data in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def envelope_manifest(name: str, kind: str, native_hash: str, subject: str, payload: Fields, created_at: str) -> Fields:
    """Return HELM's EnvelopeManifest for one envelope, with its hash."""
    fields: Fields = {
        "manifest_id": name,
        "envelope": kind,
        "native_evidence_hash": native_hash,
        "native_authority": True,
        "subject": subject,
        "payload_type": IN_TOTO if kind == "in-toto" else EVIDENCE_ROOT,
        "payload_hash": digest(payload),
        "created_at": created_at,
    }
    return fields | {"manifest_hash": digest(fields)}
