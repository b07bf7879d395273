"""Ed25519 (RFC 8032) by PyNaCl. `standalone/ed25519.py` checks signatures without it."""

import nacl.bindings
import nacl.exceptions


def key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """Return the 32 bytes of the public key of a seed, and what `sign` takes."""
    public, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
    return public, secret


def sign(message: bytes, secret: bytes) -> bytes:
    """Return the 64 bytes of the signature."""
    return nacl.bindings.crypto_sign(message, secret)[: nacl.bindings.crypto_sign_BYTES]


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the holder of a public key signed exactly this message."""
    if len(signature) != nacl.bindings.crypto_sign_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError):
        return False
    return True
