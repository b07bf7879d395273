"""Checkpoints: signed roots of the tree so far, in the text form of C2SP. Pure.

    helm-sentry/run/20261121-071503-ab12cd                  origin: which log this is (c2sp.org/tlog-checkpoint)
    1024                                                    number of records
    <base64 of the root>
    witness 62 62                                           with a witness: calls by the kernel's count, by the log's

    — helm-sentry/run/20261121-071503-ab12cd <base64>       key name; key hash and signature (c2sp.org/signed-note)

The origin is the key name too, so a key speaks for one run at a time. The two counts are those of the last record of
the witness before the checkpoint; without one the line is not there. Written here are these lines and no others, in
one spelling: a checkpoint that was changed in any byte is not read.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry.audit.merkle import HASH_SIZE

DASH = "\u2014 "
"""How the last line of a note begins, and no other."""

MOST_LINES = 6
"""Lines of a note at most."""

MOST_RECORDS = 1024
"""Records after which there is a checkpoint at the latest."""

_ORIGIN = "helm-sentry/run/"
_SIGNATURE_TYPE = b"\x01"  # Ed25519, c2sp.org/signed-note
_WITNESS = "witness"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log amounts to at one size.

    Attributes:
        run: the run's id.
        size: number of records.
        root: root of the tree over them.
        witness: mediated calls as the kernel and as the supervisor counted them; None where there is no count yet.
    """

    run: str
    size: int
    root: bytes
    witness: tuple[int, int] | None = None

    @property
    def origin(self) -> str:
        """The name of the log and of the key that speaks for it."""
        return _ORIGIN + self.run

    def body(self) -> bytes:
        """Return the text that is signed."""
        counts = "{} {} {}\n".format(_WITNESS, *self.witness) if self.witness else ""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n{counts}".encode()

    def sign(self, public: bytes, sign: Callable[[bytes], bytes]) -> bytes:
        """Return the signed note.

        Args:
            public: the 32 bytes of the public key.
            sign: returns the Ed25519 signature of a text by its private half.
        """
        body = self.body()
        return signed_note(body, self.origin, key_hash(self.origin, public) + sign(body))

    @classmethod
    def open(cls, note: bytes, public: bytes, verify: Callable[[bytes, bytes], bool]) -> "Checkpoint":
        """Return the checkpoint in a signed note.

        Args:
            note: the lines.
            public: the 32 bytes of the public key that must have signed.
            verify: returns whether its private half signed a text, given text and signature.

        Raises:
            ValueError: not a note as `sign` gives it, or not signed by this key.
        """
        try:
            origin, size, root, *counts, blank, signature, rest = note.decode().split("\n")
            found = cls(origin.removeprefix(_ORIGIN), int(size), base64.b64decode(root, validate=True), _counts(counts))
            data = base64.b64decode(signature.rpartition(" ")[2], validate=True)
        except (ValueError, binascii.Error) as error:
            raise ValueError("not a signed checkpoint") from error
        # One spelling: no second signature, no other digits, no stray bits of base64.
        written = signed_note(found.body(), found.origin, data)
        if written != note or len(found.root) != HASH_SIZE or found.size < 1 or blank or rest:
            raise ValueError("not a signed checkpoint in canonical form")
        if data[:4] != key_hash(found.origin, public):
            raise ValueError("the checkpoint was signed by another key, or for another run")
        if not verify(found.body(), data[4:]):
            raise ValueError("the checkpoint's signature does not match its contents")
        return found


def _counts(lines: list[str]) -> tuple[int, int] | None:
    """Return the counts in the lines between root and signature, of which there is one or none."""
    if not lines:
        return None
    ((word, kernel, log),) = (line.split(" ") for line in lines)
    if word != _WITNESS or min(int(kernel), int(log)) < 0:
        raise ValueError("not the counts of a witness")
    return int(kernel), int(log)


def signed_note(text: bytes, name: str, signature: bytes) -> bytes:
    """Return a text with one signature line; the signature begins with the key's hash (c2sp.org/signed-note)."""
    return text + f"\n{DASH}{name} {base64.b64encode(signature).decode()}\n".encode()


def key_hash(name: str, public: bytes) -> bytes:
    """Return the four bytes by which a signature line names its key (c2sp.org/signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + _SIGNATURE_TYPE + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """Return a public key in the text form that other tools for signed notes take."""
    encoded = base64.b64encode(_SIGNATURE_TYPE + public).decode()
    return f"{name}+{key_hash(name, public).hex()}+{encoded}"
