"""Looking at files without opening them: stat, access, readlink, statfs, watches. The result is copied back."""

import errno
import os
import stat as st

from helm_sentry.abi import flags, libc
from helm_sentry.abi.arch import native
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.abi.structs import STAT_SIZES, STATFS_SIZE, STATX_SIZE
from helm_sentry.broker.action import SUCCESS, Action, Value
from helm_sentry.broker.call import Call
from helm_sentry.broker.paths import Pinned
from helm_sentry.decode.operations import access_kinds, file_operation
from helm_sentry.operation import Kind

_STAT_SIZE = STAT_SIZES[native().name]
_STAT_FLAGS = flags.AT_SYMLINK_NOFOLLOW | 0x800 | flags.AT_EMPTY_PATH | 0x6000  # AT_NO_AUTOMOUNT, AT_STATX_*
_SYNC_TYPE = 0x6000  # AT_STATX_FORCE_SYNC and AT_STATX_DONT_SYNC, which exclude each other
_WATCH_BITS = 0xF700EFFF  # every IN_* of <linux/inotify.h>
_ACCESS_FLAGS = flags.AT_EACCESS | flags.AT_SYMLINK_NOFOLLOW | flags.AT_EMPTY_PATH


def stat(call: Call) -> Action:
    """stat(2)."""
    return _stat(call, _look(call, AT_FDCWD, call.string(0)), call.args[1])


def lstat(call: Call) -> Action:
    """lstat(2)."""
    return _stat(call, _look(call, AT_FDCWD, call.string(0), follow=False), call.args[1])


def newfstatat(call: Call) -> Action:
    """fstatat(2); with an empty path it is fstat(2), which needs no permission."""
    directory, at_flags = call.int32(0), call.uint32(3)
    if at_flags & ~_STAT_FLAGS:
        raise OSError(errno.EINVAL, "unknown flags")
    path = _optional_path(call, 1, at_flags)
    if path is None:
        return _stat(call, call.descriptor(directory), call.args[2])
    follow = not at_flags & flags.AT_SYMLINK_NOFOLLOW
    return _stat(call, _look(call, directory, path, follow), call.args[2])


def statx(call: Call) -> Action:
    """statx(2)."""
    directory, at_flags, mask = call.int32(0), call.uint32(2), call.uint32(3)
    if at_flags & ~_STAT_FLAGS or at_flags & _SYNC_TYPE == _SYNC_TYPE or mask & 0x80000000:
        raise OSError(errno.EINVAL, "unknown flags")
    path = _optional_path(call, 1, at_flags)
    follow = not at_flags & flags.AT_SYMLINK_NOFOLLOW
    pinned = call.descriptor(directory) if path is None else _look(call, directory, path, follow)
    buffer = bytearray(STATX_SIZE)
    libc.statx(pinned.descriptor, b"", (at_flags & 0x6800) | flags.AT_EMPTY_PATH, mask, buffer)
    if call.operations:
        call.broker.repeat(call, pinned.status())
    call.write(call.args[4], buffer)
    return SUCCESS


def access(call: Call) -> Action:
    """access(2)."""
    return _access(call, AT_FDCWD, 0, call.uint32(1), 0)


def faccessat(call: Call) -> Action:
    """faccessat, which has no flags."""
    return _access(call, call.int32(0), 1, call.uint32(2), 0)


def faccessat2(call: Call) -> Action:
    """faccessat2(2)."""
    return _access(call, call.int32(0), 1, call.uint32(2), call.uint32(3))


def readlink(call: Call) -> Action:
    """readlink(2)."""
    return _readlink(call, AT_FDCWD, 0, call.args[1], call.int32(2))


def readlinkat(call: Call) -> Action:
    """readlinkat(2)."""
    return _readlink(call, call.int32(0), 1, call.args[2], call.int32(3))


def statfs(call: Call) -> Action:
    """statfs(2)."""
    pinned = _look(call, AT_FDCWD, call.string(0))
    buffer = bytearray(STATFS_SIZE)
    libc.statfs(pinned.link, buffer)
    call.write(call.args[1], buffer)
    return SUCCESS


def inotify_add_watch(call: Call) -> Action:
    """inotify_add_watch(2): the watch is put on the pinned object, in the agent's own inotify instance."""
    mask = call.uint32(2)
    if not mask or mask & ~_WATCH_BITS:
        raise OSError(errno.EINVAL, "unknown events")
    instance = call.broker.duplicate(call, call.int32(0))
    if call.broker.resolver.name_of(instance) != b"anon_inode:inotify":
        raise OSError(errno.EINVAL, "not an inotify instance")
    pinned = _look(call, AT_FDCWD, call.string(1), follow=not mask & flags.IN_DONT_FOLLOW)
    if not pinned.anonymous:  # events name what is in a directory, and tell when a file is used
        directory = st.S_ISDIR(pinned.status().st_mode)
        call.judge(file_operation(Kind.FILE_LIST if directory else Kind.FILE_READ, pinned.path))
    return Value(libc.inotify_add_watch(instance, pinned.link, mask & ~flags.IN_DONT_FOLLOW))


def _optional_path(call: Call, index: int, at_flags: int) -> bytes | None:
    """Return the path argument, None when it is empty (or absent) and AT_EMPTY_PATH makes that mean the descriptor."""
    if at_flags & flags.AT_EMPTY_PATH and call.args[index] == 0:
        return None
    path = call.string(index)
    return None if not path and at_flags & flags.AT_EMPTY_PATH else path


def _look(call: Call, directory: int, path: bytes, follow: bool = True) -> Pinned:
    """Pin an object that may be stat'ed."""
    pinned = call.pin(directory, path, follow=follow)
    if not pinned.anonymous:
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
    call.require(pinned)
    return pinned


def _stat(call: Call, pinned: Pinned, address: int) -> Action:
    buffer = bytearray(_STAT_SIZE)
    libc.newfstatat(pinned.descriptor, b"", buffer, flags.AT_EMPTY_PATH)
    if call.operations:
        call.broker.repeat(call, pinned.status())
    call.write(address, buffer)
    return SUCCESS


def _access(call: Call, directory: int, index: int, mode: int, at_flags: int) -> Action:
    """Answer what both the file's permissions and the policy would: a yes must not turn into a refusal later."""
    if at_flags & ~_ACCESS_FLAGS or mode & ~0o7:
        raise OSError(errno.EINVAL, "unknown flags")
    path = call.string(index)
    if not path and at_flags & flags.AT_EMPTY_PATH:
        pinned = call.descriptor(directory)
    else:
        pinned = _look(call, directory, path, follow=not at_flags & flags.AT_SYMLINK_NOFOLLOW)
    libc.faccessat2(pinned.descriptor, b"", mode, flags.AT_EMPTY_PATH)
    status = pinned.status()
    promised = access_kinds(mode, st.S_ISDIR(status.st_mode), st.S_ISREG(status.st_mode))
    if pinned.anonymous:
        return SUCCESS
    operations = [file_operation(kind, pinned.path) for kind in promised]
    if not call.permits(*operations):
        raise OSError(errno.EACCES, "the policy would refuse it")
    if not call.broker.enforcing:  # so that the log says what the answer took for granted
        call.judge(*call.operations, *operations)
    return SUCCESS


def _readlink(call: Call, directory: int, index: int, address: int, size: int) -> Action:
    """Do what both calls have in common; the path is the argument `index`."""
    if size <= 0:
        raise OSError(errno.EINVAL, "no room")
    path = call.string(index)
    # An empty path with a descriptor of a link, opened with O_PATH, reads that link.
    pinned = call.descriptor(directory) if not path else _look(call, directory, path, follow=False)
    try:
        text = call.broker.resolver.link_text(call.tid, pinned)
    except OSError as error:
        if not path and error.errno == errno.EINVAL:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        raise
    call.write(address, text[:size])
    return Value(min(len(text), size))


HANDLERS = {
    "stat": stat,
    "lstat": lstat,
    "newfstatat": newfstatat,
    "statx": statx,
    "access": access,
    "faccessat": faccessat,
    "faccessat2": faccessat2,
    "readlink": readlink,
    "readlinkat": readlinkat,
    "statfs": statfs,
    "inotify_add_watch": inotify_add_watch,
}
