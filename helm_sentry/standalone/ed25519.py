"""Stands in for `receipt/ed25519.py` where there is no PyNaCl: checks signatures (RFC 8032 section 5.1).

By `cryptography` where that is installed, otherwise by the code below, at some milliseconds each. Nothing here is
secret, so nothing takes constant time. A key or a commitment of small order is refused, as libsodium does: for it
signatures mean nothing.
"""

import hashlib
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point: TypeAlias = tuple[int, int, int, int]


def _add(a: Point, b: Point) -> Point:
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _equal(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _decode(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = _decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def _small_order(point: Point) -> bool:
    return _equal(_multiply(8, point), (0, 1, 1, 0))


def plain_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the holder of a public key signed exactly this message, by nothing but Python."""
    if len(public) != 32 or len(signature) != 64 or BASE is None:
        return False
    key, commitment = _decode(public), _decode(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= ORDER or _small_order(key) or _small_order(commitment):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    return _equal(_multiply(scalar, BASE), _add(commitment, _multiply(challenge, key)))


def _quickest() -> Callable[[bytes, bytes, bytes], bool]:
    try:
        ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        errors: Any = (importlib.import_module("cryptography.exceptions").InvalidSignature, ValueError)
    except ImportError:
        return plain_verify

    def library_verify(public: bytes, message: bytes, signature: bytes) -> bool:
        key = _decode(public)
        if key is None or _small_order(key):  # OpenSSL takes those
            return False
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except errors:
            return False
        return True

    return library_verify


verify = _quickest()
