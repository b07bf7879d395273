"""The files of a run directory: created before the run, and read back after it."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator

from helm_sentry.audit.canonical import Fields, dumps, escape
from helm_sentry.audit.record import MAX_LINE
from helm_sentry.audit.segments import CHUNK, COMPRESSED, open_file, segment_name, stored_names
from helm_sentry.errors import AuditError, VerificationError
from helm_sentry.receipt.files import sync_directory, sync_file, write_new
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.receipt import digest
from helm_sentry.receipt.report import (
    CHECKPOINTS,
    DENIALS,
    DIGESTED,
    PUBLIC,
    SEAL,
    SEGMENTS,
    TREE,
    RunFiles,
    Segment,
)

_MAX_DOCUMENT = 1 << 26


def create_run(directory: str, facts: Fields, policy: Fields, plan: Fields, key: PublicKey) -> dict[str, str]:
    """Write what is known of a run before it starts; `sync_run` makes it durable.

    Args:
        directory: the run directory, new and empty.
        facts: what goes into run.json.
        policy: what goes into policy.json.
        plan: what goes into plan.json.
        key: the key that will sign.

    Returns:
        Members for the start record, which makes the log vouch for these files.
    """
    digests = {"key": key.id}
    for (member, name), value in zip(DIGESTED.items(), (facts, policy, plan), strict=True):
        text = dumps(value)
        digests[member] = digest(text)
        write_new(os.path.join(directory, name), text + b"\n", durable=False)
    write_new(os.path.join(directory, PUBLIC), key.export(), durable=False)
    os.mkdir(os.path.join(directory, os.path.dirname(DENIALS)), 0o700)
    for name in (TREE, CHECKPOINTS, DENIALS):
        write_new(os.path.join(directory, name), b"", durable=False)
    return digests


def sync_run(directory: str) -> None:
    """Return when what `create_run` wrote is on the disk.

    Raises:
        AuditError: it cannot be brought there.
    """
    try:
        for name in (*DIGESTED.values(), PUBLIC):
            sync_file(os.path.join(directory, name))
        sync_directory(os.path.join(directory, os.path.dirname(DENIALS)))
        sync_directory(directory)
    except OSError as error:
        raise AuditError(f"the files of the run cannot be written: {error}") from error


def read_run(directory: str, advance: Callable[[int], None] = lambda count: None) -> RunFiles:
    """Return the files of a run directory; those that have a line for each record are read as they are iterated.

    Args:
        directory: the run directory.
        advance: called now and then with the number of bytes of the log's files that were read since.

    Raises:
        VerificationError: a file is missing or cannot be read.
    """
    names = tuple(stored_names(directory)) or (segment_name(0),)
    return RunFiles(
        documents={name: read_document(directory, name) for name in DIGESTED.values()},
        public_key=read_document(directory, PUBLIC),
        segments=tuple(_segment(directory, name, advance) for name in names),
        tree=_lines(directory, TREE),
        checkpoints=_lines(directory, CHECKPOINTS),
        denials=_lines(directory, DENIALS),
        archive=_lines(directory, SEGMENTS) if _there(directory, SEGMENTS) else (),
        seal=read_document(directory, SEAL) if _there(directory, SEAL) else None,
        others=tuple(sorted(_others(directory, names))),
    )


def _segment(directory: str, name: str, advance: Callable[[int], None]) -> Segment:
    plain = name.removesuffix(COMPRESSED)
    copy = plain + COMPRESSED
    return Segment(
        name=name,
        lines=_counted(directory, name, advance),
        compressed=name == copy,
        stored=_digest(directory, copy) if _there(directory, copy) else "",
    )


def _counted(directory: str, name: str, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Return the lines of a segment, saying how much of its file that was; of a compressed one at its end."""
    told, read = 0, 0
    compressed = name.endswith(COMPRESSED)
    for line in _lines(directory, name):
        yield line
        read += len(line)
        if not compressed and read - told >= CHUNK:
            advance(read - told)
            told = read
    advance(os.stat(os.path.join(directory, name)).st_size - told)


def _digest(directory: str, name: str) -> str:
    state = hashlib.sha256()
    with open_file(directory, name, plain=True) as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _there(directory: str, name: str) -> bool:
    return os.path.lexists(os.path.join(directory, name))


def read_document(directory: str, name: str) -> bytes:
    """Return the contents of a small file of a run directory.

    Raises:
        VerificationError: it is missing, too large, or cannot be read.
    """
    with open_file(directory, name) as file:
        return file.read(_MAX_DOCUMENT)


def _lines(directory: str, name: str) -> Iterator[bytes]:
    with open_file(directory, name) as file:
        try:
            while line := file.readline(MAX_LINE):
                yield line
        except (OSError, EOFError, zlib.error) as error:  # as gzip reports what is none
            raise VerificationError(f"{name}: cannot be read: {error}") from error


def _others(directory: str, segments: tuple[str, ...]) -> Iterator[str]:
    known = {TREE, CHECKPOINTS, DENIALS, SEGMENTS, SEAL, PUBLIC, *DIGESTED.values(), *segments}
    known |= {name + COMPRESSED for name in segments}
    for parent, _, names in os.walk(directory):
        paths = (os.path.relpath(os.path.join(parent, name), directory) for name in names)
        yield from (escape(path) for path in paths if path not in known)
