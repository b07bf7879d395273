"""Changing what is known about a file: length, mode, owner, times, extended attributes; by path or descriptor.

A descriptor opened for reading is enough for the kernel to change an inode's metadata, so the calls that take one
are judged like the others.
"""

import errno
import os
import stat
from collections.abc import Callable
from hashlib import sha256

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.abi.structs import TIMESPEC_PAIR, UTIMBUF
from helm_sentry.broker.action import SUCCESS, Action, Value
from helm_sentry.broker.call import Call
from helm_sentry.broker.files import OWN_OBJECT
from helm_sentry.broker.paths import Pinned
from helm_sentry.decode.operations import file_operation
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.pattern import printable

_MICROSECONDS = 1_000_000
_UNCHANGED = (1 << 32) - 1  # an owner or group that stays
_MOMENTS = {flags.UTIME_NOW: "the time it is", flags.UTIME_OMIT: "unchanged"}
_LONGEST_SHOWN = 200  # bytes of an attribute, to a person who is asked
_EMPTY_OR_NOFOLLOW = flags.AT_SYMLINK_NOFOLLOW | flags.AT_EMPTY_PATH


def truncate(call: Call) -> Action:
    """truncate(2)."""
    length = call.args[1] - (1 << 64) if call.args[1] >> 63 else call.args[1]
    if length < 0:
        raise OSError(errno.EINVAL, "negative length")
    call.about = (f"to a length of {length} bytes",)
    pinned = _changing(call, Kind.FILE_TRUNCATE, call.pin(AT_FDCWD, call.string(0)), length)
    os.truncate(pinned.link, length)
    return SUCCESS


def chmod(call: Call) -> Action:
    """chmod(2)."""
    return _chmod(call, call.pin(AT_FDCWD, call.string(0)), call.uint32(1))


def fchmod(call: Call) -> Action:
    """fchmod(2)."""
    return _chmod(call, call.opened(call.int32(0)), call.uint32(1))


def fchmodat(call: Call) -> Action:
    """fchmodat, which has no flags."""
    return _chmod(call, call.pin(call.int32(0), call.string(1)), call.uint32(2))


def fchmodat2(call: Call) -> Action:
    """fchmodat2(2)."""
    return _chmod(call, _object(call, call.int32(0), 1, call.uint32(3), _EMPTY_OR_NOFOLLOW), call.uint32(2))


def chown(call: Call) -> Action:
    """chown(2)."""
    return _chown(call, call.pin(AT_FDCWD, call.string(0)), call.uint32(1), call.uint32(2))


def lchown(call: Call) -> Action:
    """lchown(2)."""
    return _chown(call, call.pin(AT_FDCWD, call.string(0), follow=False), call.uint32(1), call.uint32(2))


def fchown(call: Call) -> Action:
    """fchown(2)."""
    return _chown(call, call.opened(call.int32(0)), call.uint32(1), call.uint32(2))


def fchownat(call: Call) -> Action:
    """fchownat(2)."""
    pinned = _object(call, call.int32(0), 1, call.uint32(4), _EMPTY_OR_NOFOLLOW)
    return _chown(call, pinned, call.uint32(2), call.uint32(3))


def utime(call: Call) -> Action:
    """utime(2)."""
    times = None
    if call.args[1]:
        access, modification = UTIMBUF.unpack(call.read(call.args[1], UTIMBUF.size))
        times = TIMESPEC_PAIR.pack(access, 0, modification, 0)
    return _utime(call, call.pin(AT_FDCWD, call.string(0)), times)


def utimes(call: Call) -> Action:
    """utimes(2)."""
    times = _timeval_pair(call, call.args[1])
    return _utime(call, call.pin(AT_FDCWD, call.string(0)), times)


def futimesat(call: Call) -> Action:
    """futimesat(2); without a path it means the descriptor."""
    times = _timeval_pair(call, call.args[2])
    if call.args[1] == 0 and call.int32(0) != AT_FDCWD:
        return _utime(call, call.opened(call.int32(0)), times)
    return _utime(call, call.pin(call.int32(0), call.string(1)), times)


def utimensat(call: Call) -> Action:
    """utimensat(2); without a path it is futimens(3)."""
    times = call.read(call.args[2], TIMESPEC_PAIR.size) if call.args[2] else None
    if times and TIMESPEC_PAIR.unpack(times)[1::2] == (flags.UTIME_OMIT, flags.UTIME_OMIT):
        return SUCCESS  # nothing is to change: the kernel does not look at the path either
    if call.args[1] == 0 and call.int32(0) != AT_FDCWD:
        if call.uint32(3):
            raise OSError(errno.EINVAL, "flags without a path")
        return _utime(call, call.opened(call.int32(0)), times)
    return _utime(call, _object(call, call.int32(0), 1, call.uint32(3), _EMPTY_OR_NOFOLLOW), times)


def setxattr(call: Call) -> Action:
    """setxattr(2)."""
    return _setxattr(call, lambda: call.pin(AT_FDCWD, call.string(0)))


def lsetxattr(call: Call) -> Action:
    """lsetxattr(2)."""
    return _setxattr(call, lambda: call.pin(AT_FDCWD, call.string(0), follow=False))


def fsetxattr(call: Call) -> Action:
    """fsetxattr(2)."""
    return _setxattr(call, lambda: call.opened(call.int32(0)))


def getxattr(call: Call) -> Action:
    """getxattr(2)."""
    return _getxattr(call, lambda: call.pin(AT_FDCWD, call.string(0)))


def lgetxattr(call: Call) -> Action:
    """lgetxattr(2)."""
    return _getxattr(call, lambda: call.pin(AT_FDCWD, call.string(0), follow=False))


def listxattr(call: Call) -> Action:
    """listxattr(2)."""
    return _listxattr(call, call.pin(AT_FDCWD, call.string(0)))


def llistxattr(call: Call) -> Action:
    """llistxattr(2)."""
    return _listxattr(call, call.pin(AT_FDCWD, call.string(0), follow=False))


def removexattr(call: Call) -> Action:
    """removexattr(2)."""
    return _removexattr(call, lambda: call.pin(AT_FDCWD, call.string(0)))


def lremovexattr(call: Call) -> Action:
    """lremovexattr(2)."""
    return _removexattr(call, lambda: call.pin(AT_FDCWD, call.string(0), follow=False))


def fremovexattr(call: Call) -> Action:
    """fremovexattr(2)."""
    return _removexattr(call, lambda: call.opened(call.int32(0)))


def unsupported(call: Call) -> Action:
    """Answer ENOSYS, as an older kernel would; callers fall back to the calls above."""
    raise OSError(errno.ENOSYS, "not offered")


def _object(call: Call, directory: int, index: int, at_flags: int, known: int) -> Pinned:
    if at_flags & ~known:
        raise OSError(errno.EINVAL, "unknown flags")
    path = call.string(index)
    if not path and at_flags & flags.AT_EMPTY_PATH:
        return call.descriptor(directory)
    return call.pin(directory, path, follow=not at_flags & flags.AT_SYMLINK_NOFOLLOW)


def _changing(call: Call, kind: Kind, pinned: Pinned, size: int = 0) -> Pinned:
    """Return the object if it may be changed, as to the new size; the record is written first."""
    operation = Operation(kind, path=pinned.path, size=size) if size else file_operation(kind, pinned.path)
    if pinned.anonymous:
        call.judge_builtin(OWN_OBJECT, operation)
    else:
        call.judge(operation, effect=not pinned.error)
    call.require(pinned)
    return pinned


def _chmod(call: Call, pinned: Pinned, mode: int) -> Action:
    call.about = (f"mode {mode & 0o7777:04o}",)
    _changing(call, Kind.FILE_CHMOD, pinned)
    if stat.S_ISLNK(pinned.status().st_mode):
        raise OSError(errno.EOPNOTSUPP, "links have no mode")
    os.chmod(pinned.link, mode & 0o7777)
    return SUCCESS


def _chown(call: Call, pinned: Pinned, uid: int, gid: int) -> Action:
    call.about = tuple(f"{what} {id_}" for what, id_ in (("owner", uid), ("group", gid)) if id_ != _UNCHANGED)
    _changing(call, Kind.FILE_CHOWN, pinned)
    libc.fchownat(pinned.descriptor, b"", uid, gid, flags.AT_EMPTY_PATH)
    return SUCCESS


def _utime(call: Call, pinned: Pinned, times: bytes | None) -> Action:
    call.about = _times_in_words(times)
    _changing(call, Kind.FILE_UTIME, pinned)
    if stat.S_ISLNK(pinned.status().st_mode):
        libc.utimensat(pinned.descriptor, b"", times, flags.AT_EMPTY_PATH)
    else:
        libc.utimensat(AT_FDCWD, pinned.link, times, 0)
    return SUCCESS


def _times_in_words(times: bytes | None) -> tuple[str, ...]:
    if times is None:
        return ("to the time it is",)
    pair = TIMESPEC_PAIR.unpack(times)
    return tuple(
        f"{what} {_MOMENTS.get(part, f'{seconds}.{part:09}')}"
        for what, seconds, part in (("access", *pair[:2]), ("modification", *pair[2:]))
    )


def _visible(data: bytes) -> str:
    if len(data) <= _LONGEST_SHOWN:
        return printable(os.fsdecode(data))
    begin = printable(os.fsdecode(data[:_LONGEST_SHOWN]))
    return f"{begin}...] of {len(data)} bytes, SHA-256 [{sha256(data).hexdigest()}"


def _timeval_pair(call: Call, address: int) -> bytes | None:
    if not address:
        return None
    first, first_us, second, second_us = TIMESPEC_PAIR.unpack(call.read(address, TIMESPEC_PAIR.size))
    if not (0 <= first_us < _MICROSECONDS and 0 <= second_us < _MICROSECONDS):
        raise OSError(errno.EINVAL, "bad microseconds")
    return TIMESPEC_PAIR.pack(first, first_us * 1000, second, second_us * 1000)


def _attribute_name(call: Call) -> bytes:
    try:
        name = call.string(1, flags.XATTR_NAME_MAX + 1)
    except OSError as error:
        raise OSError(errno.ERANGE if error.errno == errno.ENAMETOOLONG else error.errno, "bad name") from None
    if not name:
        raise OSError(errno.ERANGE, "empty name")
    return name


def _setxattr(call: Call, pin: Callable[[], Pinned]) -> Action:
    """Set an attribute; the kernel looks at everything else before it looks for the file."""
    size, how = call.args[3], call.uint32(4)
    if how & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
        raise OSError(errno.EINVAL, "unknown flags")
    name = _attribute_name(call)
    if size > flags.XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, "value is too long")
    value = call.copy(bytes(call.broker.memory.read_large(call.tid, call.args[2], size)))
    if len(value) < size:
        raise OSError(errno.EFAULT, "short read")
    call.about = f"attribute [{_visible(name)}]", f"value [{_visible(value)}]"
    pinned = _changing(call, Kind.FILE_XATTR, pin())
    os.setxattr(pinned.link, name, value, how)
    return SUCCESS


def _seen(call: Call, pinned: Pinned) -> Pinned:
    if not pinned.anonymous:
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
    call.require(pinned)
    return pinned


def _getxattr(call: Call, pin: Callable[[], Pinned]) -> Action:
    name = _attribute_name(call)
    return _give_back(call, os.getxattr(_seen(call, pin()).link, name))


def _listxattr(call: Call, pinned: Pinned) -> Action:
    names = os.listxattr(_seen(call, pinned).link)
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    return _give_back(call, data, address_index=1)


def _give_back(call: Call, data: bytes, address_index: int = 2) -> Action:
    """Copy a value out, or only say how long it is when the agent asked with no room."""
    address, room = call.args[address_index], call.args[address_index + 1]
    if room:
        if len(data) > room:
            raise OSError(errno.ERANGE, "too small a buffer")
        call.write(address, data)
    return Value(len(data))


def _removexattr(call: Call, pin: Callable[[], Pinned]) -> Action:
    name = _attribute_name(call)
    call.about = (f"attribute [{_visible(name)}], taken away",)
    pinned = _changing(call, Kind.FILE_XATTR, pin())
    os.removexattr(pinned.link, name)
    return SUCCESS


HANDLERS = {
    handler.__name__: handler
    for handler in (
        truncate,
        chmod,
        fchmod,
        fchmodat,
        fchmodat2,
        chown,
        lchown,
        fchown,
        fchownat,
        utime,
        utimes,
        futimesat,
        utimensat,
        setxattr,
        lsetxattr,
        fsetxattr,
        getxattr,
        lgetxattr,
        listxattr,
        llistxattr,
        removexattr,
        lremovexattr,
        fremovexattr,
    )
} | dict.fromkeys(("setxattrat", "getxattrat", "listxattrat", "removexattrat"), unsupported)
