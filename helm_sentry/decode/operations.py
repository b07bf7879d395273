"""From a decoded syscall and the facts about its object to the operations a policy judges. Pure."""

import os
from functools import lru_cache

from helm_sentry.abi.flags import O_PATH, O_TMPFILE_BIT
from helm_sentry.operation import Kind, Operation


@lru_cache(maxsize=8192)
def file_operation(kind: Kind, path: str) -> Operation:
    """Return the operation on one file; the same object for the same question."""
    return Operation(kind, path=path)


@lru_cache(maxsize=1024)
def tree_operation(kind: Kind, path: str) -> Operation:
    """Return an operation that reaches everything beneath `path` if it is, or turns into, a directory."""
    return Operation(kind, path=path, directory=True)


@lru_cache(maxsize=256)
def opening_kinds(open_flags: int, exists: bool, directory: bool) -> tuple[Kind, ...]:
    """Return what an open asks for.

    Args:
        open_flags: O_* of open(2).
        exists: the object is there.
        directory: it is a directory.
    """
    if open_flags & O_PATH:
        return (Kind.FILE_STAT,)
    access = open_flags & os.O_ACCMODE
    kinds: list[Kind] = []
    if open_flags & O_TMPFILE_BIT or (open_flags & os.O_CREAT and not exists):
        kinds.append(Kind.FILE_CREATE)
    if access != os.O_WRONLY and exists and directory and not open_flags & O_TMPFILE_BIT:
        kinds.append(Kind.FILE_LIST)
    elif access != os.O_WRONLY:
        kinds.append(Kind.FILE_READ)
    if access != os.O_RDONLY:  # access mode 3 is checked for both and grants neither
        kinds.append(Kind.FILE_WRITE)
    if open_flags & os.O_TRUNC and exists:  # truncates even when opened for reading
        kinds.append(Kind.FILE_TRUNCATE)
    return tuple(kinds)


@lru_cache(maxsize=8192)
def opening(open_flags: int, path: str, exists: bool, directory: bool) -> tuple[Operation, ...]:
    """Return the operations of an open."""
    return tuple([file_operation(kind, path) for kind in opening_kinds(open_flags, exists, directory)])


def access_kinds(mode: int, directory: bool, executable: bool) -> tuple[Kind, ...]:
    """Return what a true answer of access(2) would promise.

    Args:
        mode: R_OK, W_OK, X_OK.
        directory: the object is a directory.
        executable: it is a regular file, so X_OK asks whether it can be run.
    """
    kinds = []
    if mode & os.R_OK:
        kinds.append(Kind.FILE_LIST if directory else Kind.FILE_READ)
    if mode & os.W_OK:
        kinds.append(Kind.FILE_CREATE if directory else Kind.FILE_WRITE)
    if mode & os.X_OK and executable:
        kinds.append(Kind.EXEC)
    return tuple(kinds)
