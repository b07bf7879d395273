"""Policy bundles: a policy for one run, signed, and good for one moment of it. Pure.

A DSSE envelope over canonical JSON: the run's id, the epoch it replaces, and the effective policy. Whoever replays one
finds that the epoch is over.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass

from helm_sentry.audit.canonical import dumps, loads
from helm_sentry.errors import PolicyError, VerificationError
from helm_sentry.policy.effective import load_effective
from helm_sentry.policy.model import Policy, Rule
from helm_sentry.receipt.envelope import Envelope, Signature, pae
from helm_sentry.receipt.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.helm-sentry.policy-bundle+json"
SCHEMA = "helm-sentry/policy-bundle/v1"


class BundleError(PolicyError):
    """A bundle is not signed, not for this run, late, or holds no policy."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says.

    Attributes:
        run: id of the run it is for.
        epoch: the epoch it replaces.
        policy: the policy to come.
    """

    run: str
    epoch: int
    policy: Policy

    def sign(self, key: SigningKey) -> bytes:
        """Return the bundle as a signed envelope."""
        text = json.dumps(self.policy.canonical())
        payload = dumps({"schema": SCHEMA, "run": self.run, "epoch": self.epoch, "policy": text})
        signature = Signature(key.public.id, key.sign(pae(PAYLOAD_TYPE, payload)))
        return Envelope(payload, PAYLOAD_TYPE, (signature,)).encode()


def open_bundle(data: bytes, keys: Collection[PublicKey], known: Collection[Rule] = ()) -> Bundle:
    """Return what a bundle says, if one of the keys signed it.

    Args:
        data: the envelope.
        keys: those who may sign.
        known: rules that need not be read again.

    Raises:
        BundleError: it is not signed by one of them, or is no bundle.
        PolicyError: the policy in it is none.
    """
    try:
        payload = loads(Envelope.parse(data).open({key.id: key for key in keys}, PAYLOAD_TYPE), canonical=True)
    except (VerificationError, ValueError) as error:
        raise BundleError(f"the policy bundle is not accepted: {error}") from error
    if not isinstance(payload, dict) or payload.get("schema") != SCHEMA:
        raise BundleError("the policy bundle is not accepted: another schema")
    run, epoch, text = payload.get("run"), payload.get("epoch"), payload.get("policy")
    if not (isinstance(run, str) and type(epoch) is int and isinstance(text, str)):
        raise BundleError("the policy bundle is not accepted: a member is missing")
    return Bundle(run, epoch, load_effective(text, "bundle.json", known))
