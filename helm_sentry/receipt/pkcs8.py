"""Ed25519 keys in the files of other tools: PKCS#8 private keys and SPKI public keys, PEM or DER. Pure.

Follows RFC 8410: the algorithm is 1.3.101.112 without parameters, a private key is an OCTET STRING in an OCTET STRING.
"""

import base64
import binascii
import re

from helm_sentry.errors import SentryError

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----\s*")
_SPKI = bytes.fromhex("302a300506032b6570032100")
"""SEQUENCE { SEQUENCE { OID 1.3.101.112 } BIT STRING, no unused bits }: then the 32 bytes."""
_ALGORITHM = bytes.fromhex("300506032b6570")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def is_pem(text: bytes) -> bool:
    """Return whether a file is PEM text."""
    return text.lstrip().startswith(b"-----BEGIN ")


def private_seed(text: bytes) -> bytes:
    """Return the 32 bytes of the seed in a PKCS#8 file.

    Raises:
        SentryError: it is encrypted, of another algorithm, or not such a file.
    """
    label, der = _decode(text)
    if label == "ENCRYPTED PRIVATE KEY":
        raise SentryError("the PKCS#8 key is encrypted; decrypt it with `openssl pkey`")
    if label not in ("", "PRIVATE KEY"):
        raise SentryError(f"not a PKCS#8 private key but `{label}`")
    try:
        whole, rest = _take(der, _SEQUENCE)
        version, members = _take(whole, _INTEGER)
        if rest or version not in (b"\x00", b"\x01"):  # version 1 adds the public key (RFC 5958)
            raise ValueError("not one key")
        if not members.startswith(_ALGORITHM):
            raise SentryError("the key is not of Ed25519; `openssl genpkey -algorithm ed25519` makes one")
        inner, _ = _take(members[len(_ALGORITHM) :], _OCTETS)
        seed, rest = _take(inner, _OCTETS)
        if rest or len(seed) != 32:
            raise ValueError("not a seed of 32 bytes")
    except ValueError as error:
        raise SentryError(f"not a PKCS#8 private key: {error}") from error
    return seed


def public_bytes(text: bytes) -> bytes:
    """Return the 32 bytes of the key in an SPKI file.

    Raises:
        SentryError: of another algorithm, or not such a file.
    """
    label, der = _decode(text)
    if label not in ("", "PUBLIC KEY") or not der.startswith(_SPKI) or len(der) != len(_SPKI) + 32:
        raise SentryError("not an Ed25519 public key (`openssl pkey -pubout`)")
    return der[len(_SPKI) :]


def public_pem(data: bytes) -> bytes:
    """Return the PEM text of a public key, as `openssl pkey -pubin` takes it."""
    return b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(_SPKI + data)


def _decode(text: bytes) -> tuple[str, bytes]:
    """Return the label, empty for DER, and the DER bytes."""
    if not is_pem(text):
        return "", text
    found = _PEM.fullmatch(text.lstrip())
    try:
        return (found[1].decode(), base64.b64decode(found[2])) if found else ("broken PEM", b"")
    except binascii.Error as error:
        raise SentryError(f"not a PEM file: {error}") from error


def _take(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the contents of the first element, which must have this tag, and what follows it."""
    if len(der) < 2 or der[0] != tag or der[1] > 0x7F:  # none of ours is longer than 127 bytes
        raise ValueError("unexpected element")
    end = 2 + der[1]
    if end > len(der):
        raise ValueError("cut short")
    return der[2:end], der[end:]
