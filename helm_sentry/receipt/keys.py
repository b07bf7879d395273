"""Ed25519 keys: where they are kept and what they sign.

`<state>/keys/signing.key` is private, `<state>/keys/<id>.pub` public, to hand out. One line each:

    ed25519-seed <base64 of the 32 byte seed> <id>
    ed25519 <base64 of the 32 byte public key> <id>

The id is the first 16 hex digits of the SHA-256 of the public key. A key file appears whole or not at all: it
is written and synced under a temporary name and then linked, which fails if another process was first.
"""

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass

from helm_sentry.errors import SentryError, UsageError
from helm_sentry.receipt import ed25519, pkcs8

KEY_NAME = "signing.key"
_PUBLIC, _SEED = "ed25519", "ed25519-seed"
_MAX_FILE = 4096
_HEX = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures.

    Attributes:
        data: the 32 bytes of the key.
        id: first 16 hex digits of the SHA-256 of `data`.
    """

    data: bytes
    id: str

    @classmethod
    def of(cls, data: bytes) -> "PublicKey":
        """Return the key with these 32 bytes."""
        return cls(data, hashlib.sha256(data).hexdigest()[:16])

    @classmethod
    def parse(cls, text: bytes) -> "PublicKey":
        """Return the key in a public key file.

        Raises:
            SentryError: anything but the exact bytes that `export` gives.
        """
        key = cls.of(_decode(text, _PUBLIC))
        if key.export() != text:
            raise SentryError("not a public key file: its key id is not that of its key")
        return key

    def export(self) -> bytes:
        """Return the contents of the public key file."""
        return _encode(_PUBLIC, self.data, self.id)

    def verify_signature(self, message: bytes, signature: bytes) -> bool:
        """Return whether this key signed exactly this message."""
        return ed25519.verify(self.data, message, signature)


class SigningKey:
    """A private key, held in memory for the length of a run.

    Args:
        seed: the 32 bytes from which RFC 8032 derives the key.
    """

    __slots__ = ("_secret", "_seed", "public")

    def __init__(self, seed: bytes) -> None:
        data, self._secret = ed25519.key_pair(seed)
        self._seed = seed
        self.public = PublicKey.of(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.public.id})"

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return ed25519.sign(message, self._secret)

    def export(self) -> bytes:
        """Return the contents of the private key file."""
        return _encode(_SEED, self._seed, self.public.id)

    @classmethod
    def parse(cls, text: bytes) -> "SigningKey":
        """Return the key in a private key file.

        Raises:
            SentryError: anything but the exact bytes that `export` gives.
        """
        key = cls(_decode(text, _SEED))
        if key.export() != text:
            raise SentryError("not a private key file: its key id is not that of its key")
        return key


def parse_private(text: bytes) -> SigningKey:
    """Return the key in a private key file: ours, or PKCS#8 as PEM or DER.

    Raises:
        SentryError: neither.
    """
    if text.startswith(_SEED.encode()):
        return SigningKey.parse(text)
    return SigningKey(pkcs8.private_seed(text))


def load_public_key(path: str) -> PublicKey:
    """Return the key in a public key file, for example one to pin: ours, PEM as openssl writes it, or bare digits.

    Args:
        path: the file, or the key itself as 64 hex digits.

    Raises:
        SentryError: the file cannot be read or holds no public key.
    """
    if _HEX.fullmatch(path):
        return PublicKey.of(bytes.fromhex(path))
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE)
        if _HEX.fullmatch(digits := text.decode("ascii", "replace").strip()):
            return PublicKey.of(bytes.fromhex(digits))
        return PublicKey.of(pkcs8.public_bytes(text)) if pkcs8.is_pem(text) else PublicKey.parse(text)
    except OSError as error:
        raise UsageError(f"public key `{path}` cannot be read: {error.strerror}") from error
    except SentryError as error:
        raise SentryError(f"`{path}` is {error}") from error


def load_or_create(directory: str) -> SigningKey:
    """Return the signing key of a key directory; make both on first use.

    Raises:
        SentryError: somebody else owns or can read the key, or the file is damaged.
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            require_private(os.fstat(opened), directory, 0o700)
            return _load_or_place(opened, directory)
        finally:
            os.close(opened)
    except OSError as error:
        raise SentryError(f"no signing key can be had in `{directory}`: {error.strerror}") from error


def _load_or_place(directory: int, name: str) -> SigningKey:
    try:
        key = _load(directory, name)
    except FileNotFoundError:
        _place(directory, KEY_NAME, SigningKey(secrets.token_bytes(32)).export(), 0o600)
        # Another process may have placed its key first; then that one is the key.
        key = _load(directory, name)
    export = f"{key.public.id}.pub"
    if export not in os.listdir(directory):
        _place(directory, export, key.public.export(), 0o644)
    return key


def _load(directory: int, name: str) -> SigningKey:
    path = os.path.join(name, KEY_NAME)
    try:
        # O_NONBLOCK: a FIFO in the key's place must not hang the supervisor.
        file = os.open(KEY_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SentryError(f"signing key `{path}` cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise SentryError(f"signing key `{path}` is not a regular file; move it away to get a new one")
        require_private(status, path, 0o600)
        try:
            return SigningKey.parse(os.read(file, _MAX_FILE))
        except SentryError as error:
            raise SentryError(
                f"signing key `{path}` is damaged: {error}; restore it, or move it away to get a new one"
            ) from error
    finally:
        os.close(file)


def require_private(status: os.stat_result, path: str, mode: int) -> None:
    """Require that a file or directory is the caller's alone.

    Raises:
        SentryError: somebody else owns it or may reach it; says how to put that right.
    """
    if status.st_uid != os.geteuid():
        raise SentryError(
            f"`{path}` belongs to user {status.st_uid}, not to user {os.geteuid()} who runs this; "
            "use a state directory of your own (XDG_STATE_HOME)"
        )
    if excess := stat.S_IMODE(status.st_mode) & 0o077:
        raise SentryError(f"`{path}` is open to others (mode bits {excess:03o}); run `chmod {mode:o} {path}`")


def _place(directory: int, name: str, data: bytes, mode: int) -> None:
    # openat(tmp, O_EXCL); write; fsync; linkat(tmp, name); unlink(tmp); fsync(dir)
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, mode, dir_fd=directory), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary, dir_fd=directory)
    os.fsync(directory)


def _encode(word: str, data: bytes, key_id: str) -> bytes:
    return f"{word} {base64.b64encode(data).decode()} {key_id}\n".encode()


def _decode(text: bytes, word: str) -> bytes:
    parts = text.split(b" ")
    try:
        data = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error):
        data = b""
    if len(data) != 32 or parts[0] != word.encode():
        raise SentryError(f"not a key file: it does not read `{word} <base64 of 32 bytes> <id>`")
    return data
