"""Writing files so that they are there whole, and stay."""

import os
import secrets

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_new(path: str, data: bytes, *, durable: bool = True) -> None:
    """Write a file that must not exist yet; durably but for its name, unless `sync_file` is to follow."""
    with open(os.open(path, _NEW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def sync_file(path: str) -> None:
    """Return when the contents of a file are on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def replace(path: str, data: bytes) -> None:
    """Put a file in place durably: it is there whole, or not at all."""
    # write(tmp); fsync(tmp); rename(tmp, path); fsync(dir)
    temporary = f"{path}.{secrets.token_hex(8)}"
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Return when the names in a directory are on the disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
