"""The keys of this machine: which one signs, which ones are trusted.

    <state>/keys/signing.key        signs; made on first use
    <state>/keys/<id>.pub           public halves of this machine's keys, also of those that were rotated out
    <state>/keys/trusted/<id>.pub   keys of others, by `keys trust`

The signing key may come from elsewhere, in this order: a file (`--key`: ours or PKCS#8), a descriptor named by
HELM_SENTRY_KEY_FD, the systemd credential `helm-sentry.key`. A private key file is its owner's alone, or is not taken.
"""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from helm_sentry import state
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.receipt.files import replace
from helm_sentry.receipt.keys import (
    KEY_NAME,
    PublicKey,
    SigningKey,
    load_or_create,
    load_public_key,
    parse_private,
    require_private,
)

KEY_FD = "HELM_SENTRY_KEY_FD"
CREDENTIAL = "helm-sentry.key"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
_TRUSTED = "trusted"
_MAX_FILE = 4096
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that this machine knows.

    Attributes:
        key: the key.
        role: `signing`, `retired` (its private half was rotated out) or `trusted` (somebody else's).
    """

    key: PublicKey
    role: Literal["signing", "retired", "trusted"]


def key_descriptor(environment: Mapping[str, str]) -> int:
    """Return the descriptor on which a key is handed over, or -1.

    Raises:
        UsageError: what is named is none.
    """
    text = environment.get(KEY_FD, "")
    if not text:
        return -1
    try:
        os.fstat(int(text))
    except (ValueError, OSError) as error:
        raise UsageError(f"{KEY_FD} is `{text}`, which is not an open descriptor") from error
    return int(text)


def key_file(environment: Mapping[str, str], path: str = "") -> str:
    """Return the private key file outside the state directory that a run signs with, or nothing."""
    credentials = environment.get(_CREDENTIALS, "")
    credential = os.path.join(credentials, CREDENTIAL) if credentials else ""
    if path:
        return os.path.realpath(path)
    return credential if credential and key_descriptor(environment) < 0 and os.path.exists(credential) else ""


def signing_key(directory: str, environment: Mapping[str, str], path: str = "") -> SigningKey:
    """Return the key that signs.

    Args:
        directory: the key directory, for the key that is made on first use.
        environment: names a descriptor or a credential.
        path: a private key file that goes before all others.

    Raises:
        SentryError: it cannot be had, or others could have it.
    """
    descriptor = -1 if path else key_descriptor(environment)
    if descriptor >= 0:
        try:
            return _parse(_drain(descriptor), f"descriptor {descriptor} ({KEY_FD})")
        finally:
            os.close(descriptor)
    if file := key_file(environment, path):
        return _read(file, credential=not path)
    return load_or_create(directory)


def require_in_place(directory: str, environment: Mapping[str, str], path: str = "") -> None:
    """Require that a key can still be had where a run got its own, which may be another one by now (`rotate`).

    A key that came on a descriptor has no place. The arguments are those of `signing_key`.

    Raises:
        SentryError: it is gone, cannot be read, is open to others or is none.
    """
    if not path and environment.get(KEY_FD):
        return
    file = key_file(environment, path)
    _read(file or os.path.join(directory, KEY_NAME), credential=bool(file) and not path)


def own_key() -> SigningKey:
    """Return this machine's signing key, made on first use."""
    return signing_key(state.key_directory(), os.environ)


def generate(directory: str) -> SigningKey:
    """Make the signing key.

    Raises:
        UsageError: there is one.
    """
    if os.path.lexists(os.path.join(directory, KEY_NAME)):
        raise UsageError(f"there is a signing key in `{directory}`; `keys rotate` puts a new one in its place")
    return load_or_create(directory)


def rotate(directory: str) -> tuple[PublicKey, SigningKey]:
    """Put a new signing key in the old one's place, which is gone then; return the old public key and the new key.

    Runs that are going on keep the key they began with.
    """
    old = load_or_create(directory).public
    new = SigningKey(secrets.token_bytes(32))
    replace(os.path.join(directory, f"{new.public.id}.pub"), new.public.export())
    replace(os.path.join(directory, KEY_NAME), new.export())
    return old, new


def trust(directory: str, key: PublicKey) -> None:
    """Take somebody else's key among those whose signatures count as known."""
    load_or_create(directory)  # as strict about the directory as for our own key
    os.makedirs(os.path.join(directory, _TRUSTED), mode=0o700, exist_ok=True)
    replace(os.path.join(directory, _TRUSTED, f"{key.id}.pub"), key.export())


def distrust(directory: str, key_id: str) -> None:
    """Take a key of somebody else out again.

    Raises:
        UsageError: it is not there.
    """
    try:
        os.unlink(os.path.join(directory, _TRUSTED, f"{os.path.basename(key_id)}.pub"))
    except FileNotFoundError:
        raise UsageError(f"key `{key_id}` is not among the trusted keys") from None


def known(directory: str) -> Iterator[Entry]:
    """Return the keys of a key directory, the signing one first; none where there is no directory.

    Raises:
        SentryError: others could have changed it, or a file in it is damaged.
    """
    if not os.path.isdir(directory):
        return
    require_private(os.stat(directory), directory, 0o700)
    signing = ""
    if os.path.lexists(os.path.join(directory, KEY_NAME)):
        entry = Entry(load_or_create(directory).public, "signing")
        signing = entry.key.id
        yield entry
    for name in _public_files(directory):
        if (key := load_public_key(os.path.join(directory, name))).id != signing:
            yield Entry(key, "retired")
    trusted = os.path.join(directory, _TRUSTED)
    for name in _public_files(trusted) if os.path.isdir(trusted) else ():
        yield Entry(load_public_key(os.path.join(trusted, name)), "trusted")


def _public_files(directory: str) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.endswith(".pub") and not name.startswith("."))


def _read(path: str, *, credential: bool) -> SigningKey:
    try:
        file = os.open(path, _OPEN)
    except OSError as error:
        raise SentryError(f"signing key `{path}` cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise SentryError(f"signing key `{path}` is not a regular file")
        # A credential belongs to the service's user or, with an access list for it, to root.
        if not (credential and status.st_uid == 0 and not status.st_mode & 0o007):
            require_private(status, path, 0o600)
        return _parse(os.read(file, _MAX_FILE), f"`{path}`")
    finally:
        os.close(file)


def _drain(descriptor: int) -> bytes:
    data = b""
    while len(data) < _MAX_FILE and (chunk := os.read(descriptor, _MAX_FILE)):
        data += chunk
    return data


def _parse(text: bytes, where: str) -> SigningKey:
    try:
        return parse_private(text)
    except SentryError as error:
        raise SentryError(f"no signing key in {where}: {error}") from error
