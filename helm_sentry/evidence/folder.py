"""Packs on the disk: a directory, or a tar archive that is the same bytes for the same pack."""

import io
import os
import stat
import tarfile
from collections.abc import Mapping

from helm_sentry.errors import SentryError, UsageError, VerificationError

_MOST = 1 << 31  # bytes of a pack that are read into memory


def write_pack(files: Mapping[str, bytes], target: str) -> None:
    """Write a pack: a tar archive when `target` ends in `.tar`, otherwise a new directory.

    Raises:
        UsageError: there is something already.
        SentryError: it cannot be written.
        VerificationError: a path leads out of it.
    """
    for path in files:
        if not _inside(path):
            raise VerificationError(f"{path}: a path out of the pack")
    try:
        if target.endswith(".tar"):
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.write(archive(files))
            return
        os.mkdir(target)
        for path, data in files.items():
            place = os.path.join(target, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "xb") as file:
                file.write(data)
    except FileExistsError as error:
        raise UsageError(f"`{target}` is there already; name a place that is not") from error
    except OSError as error:
        raise SentryError(f"`{target}` cannot be written: {error.strerror}") from error


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a PAX archive with its members in order of their paths, of nobody and no time."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as made:
        for path in sorted(files):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(files[path]), 0o644
            made.addfile(member, io.BytesIO(files[path]))
    return whole.getvalue()


def read_pack(source: str) -> dict[str, bytes]:
    """Return the files of a pack, by path.

    Raises:
        UsageError: there is none.
        VerificationError: it has links, special files or paths that lead out of it, or is too large to read.
    """
    try:
        return read_directory(source) if os.path.isdir(source) else _read_archive(source)
    except FileNotFoundError as error:
        raise UsageError(f"there is no pack `{source}`") from error
    except (OSError, ValueError, OverflowError, RecursionError, tarfile.TarError) as error:
        raise VerificationError(f"`{source}` cannot be read as a pack: {error}") from error


def read_directory(directory: str) -> dict[str, bytes]:
    """Return the regular files below a directory, by path.

    Raises:
        VerificationError: there is something else than files and directories.
    """
    files: dict[str, bytes] = {}
    room = _MOST
    for parent, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            path = os.path.join(parent, name)
            inner = os.path.relpath(path, directory)
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise VerificationError(f"{inner}: a link or a special file")
            with open(path, "rb") as file:
                files[inner] = file.read(room + 1)
            room = _left(room, len(files[inner]), inner)
    return files


def _read_archive(source: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    room = _MOST
    with tarfile.open(source, "r:") as packed:
        for member in packed:
            plain = member.isreg() and not member.issparse() and member.size >= 0
            if not plain or not _inside(member.name) or member.name in files:
                raise VerificationError(f"{member.name}: a link, a hole, a path out of the pack, or there twice")
            room = _left(room, member.size, member.name)
            opened = packed.extractfile(member)
            files[member.name] = opened.read() if opened else b""
    return files


def _inside(path: str) -> bool:
    """Whether a path stays below where it begins, in all its parts: `a//b` is `/b` to whoever takes `a/` off."""
    return not {"", ".", ".."}.intersection(path.split("/")) and path.isprintable()


def _left(room: int, size: int, name: str) -> int:
    if size > room:
        raise VerificationError(f"{name}: the pack is larger than {_MOST:,} bytes")
    return room - size
