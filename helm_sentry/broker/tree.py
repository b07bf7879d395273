"""Changing directories' entries: each name is acted on in its pinned directory."""

import errno
import os
import stat

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.broker.action import SUCCESS, Action
from helm_sentry.broker.call import Call
from helm_sentry.broker.paths import Pinned
from helm_sentry.decode.operations import file_operation, tree_operation
from helm_sentry.intercept.process_tree import umask_of
from helm_sentry.operation import Kind


def mkdir(call: Call) -> Action:
    """mkdir(2)."""
    return _mkdir(call, AT_FDCWD, call.string(0), call.uint32(1))


def mkdirat(call: Call) -> Action:
    """mkdirat(2)."""
    return _mkdir(call, call.int32(0), call.string(1), call.uint32(2))


def mknod(call: Call) -> Action:
    """mknod(2)."""
    return _mknod(call, AT_FDCWD, call.string(0), call.uint32(1), call.uint32(2))


def mknodat(call: Call) -> Action:
    """mknodat(2)."""
    return _mknod(call, call.int32(0), call.string(1), call.uint32(2), call.uint32(3))


def unlink(call: Call) -> Action:
    """unlink(2)."""
    return _unlink(call, AT_FDCWD, call.string(0), 0)


def rmdir(call: Call) -> Action:
    """rmdir(2)."""
    return _unlink(call, AT_FDCWD, call.string(0), flags.AT_REMOVEDIR)


def unlinkat(call: Call) -> Action:
    """unlinkat(2)."""
    at_flags = call.uint32(2)
    if at_flags & ~flags.AT_REMOVEDIR:
        raise OSError(errno.EINVAL, "unknown flags")
    return _unlink(call, call.int32(0), call.string(1), at_flags)


def rename(call: Call) -> Action:
    """rename(2)."""
    return _rename(call, AT_FDCWD, call.string(0), AT_FDCWD, call.string(1), 0)


def renameat(call: Call) -> Action:
    """renameat(2)."""
    return _rename(call, call.int32(0), call.string(1), call.int32(2), call.string(3), 0)


def renameat2(call: Call) -> Action:
    """renameat2(2)."""
    return _rename(call, call.int32(0), call.string(1), call.int32(2), call.string(3), call.uint32(4))


def link(call: Call) -> Action:
    """link(2)."""
    return _link(call, AT_FDCWD, call.string(0), AT_FDCWD, call.string(1), 0)


def linkat(call: Call) -> Action:
    """linkat(2)."""
    return _link(call, call.int32(0), call.string(1), call.int32(2), call.string(3), call.uint32(4))


def symlink(call: Call) -> Action:
    """symlink(2)."""
    return _symlink(call, call.string(0), AT_FDCWD, call.string(1))


def symlinkat(call: Call) -> Action:
    """symlinkat(2)."""
    return _symlink(call, call.string(0), call.int32(1), call.string(2))


def _mkdir(call: Call, directory: int, path: bytes, mode: int) -> Action:
    place = call.place(directory, path)
    call.judge(file_operation(Kind.FILE_CREATE, place.path), effect=not place.error)
    call.require(place)
    os.umask(umask_of(call.tid))
    os.mkdir(place.leaf, mode & 0o7777, dir_fd=place.parent)
    return SUCCESS


def _mknod(call: Call, directory: int, path: bytes, mode: int, device: int) -> Action:
    place = call.place(directory, path)
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    kind = Kind.FILE_MKNOD if is_device else Kind.FILE_CREATE
    call.judge(file_operation(kind, place.path), effect=not place.error)
    call.require(place)
    os.umask(umask_of(call.tid))
    os.mknod(place.leaf, mode, device, dir_fd=place.parent)
    return SUCCESS


def _unlink(call: Call, directory: int, path: bytes, at_flags: int) -> Action:
    place = call.place(directory, path)
    # A name can turn from a file into a directory until the call is made: it is always judged as a tree.
    call.judge(tree_operation(Kind.FILE_DELETE, place.path), effect=not place.error)
    call.require(place)
    if at_flags & flags.AT_REMOVEDIR:
        os.rmdir(place.leaf, dir_fd=place.parent)
    else:
        os.unlink(place.leaf, dir_fd=place.parent)
    return SUCCESS


def _rename(
    call: Call, old_directory: int, old_path: bytes, new_directory: int, new_path: bytes, rename_flags: int
) -> Action:
    old, new = call.place(old_directory, old_path), call.place(new_directory, new_path)
    # An overwritten file is deleted; whether there is one can change until the call, unless the kernel must refuse.
    operations = [tree_operation(Kind.FILE_RENAME, old.path), tree_operation(Kind.FILE_CREATE, new.path)]
    if rename_flags & flags.RENAME_EXCHANGE:
        operations += [tree_operation(Kind.FILE_RENAME, new.path), tree_operation(Kind.FILE_CREATE, old.path)]
    elif not rename_flags & flags.RENAME_NOREPLACE:
        operations.append(tree_operation(Kind.FILE_DELETE, new.path))
    call.judge(*operations, effect=not old.error and not new.error)
    call.require(old)
    call.require(new)
    libc.renameat2(old.parent, old.leaf, new.parent, new.leaf, rename_flags)
    return SUCCESS


def _link(
    call: Call, old_directory: int, old_path: bytes, new_directory: int, new_path: bytes, at_flags: int
) -> Action:
    if at_flags & ~(flags.AT_SYMLINK_FOLLOW | flags.AT_EMPTY_PATH):
        raise OSError(errno.EINVAL, "unknown flags")
    source = _link_source(call, old_directory, old_path, at_flags)
    place = call.place(new_directory, new_path)
    call.judge(
        file_operation(Kind.FILE_LINK, source.path),
        file_operation(Kind.FILE_CREATE, place.path),
        effect=not source.error and not place.error,
    )
    call.require(source)
    call.require(place)
    libc.linkat(AT_FDCWD, source.link, place.parent, place.leaf, flags.AT_SYMLINK_FOLLOW)
    return SUCCESS


def _link_source(call: Call, directory: int, path: bytes, at_flags: int) -> Pinned:
    if not path and at_flags & flags.AT_EMPTY_PATH:
        raise OSError(errno.ENOENT, "linking a bare descriptor takes a capability the agent does not have")
    return call.pin(directory, path, follow=bool(at_flags & flags.AT_SYMLINK_FOLLOW))


def _symlink(call: Call, target: bytes, directory: int, path: bytes) -> Action:
    if not target:
        raise OSError(errno.ENOENT, "empty target")
    place = call.place(directory, path)
    call.judge(file_operation(Kind.FILE_CREATE, place.path), effect=not place.error)
    call.require(place)
    os.symlink(target, place.leaf, dir_fd=place.parent)
    return SUCCESS


HANDLERS = {
    "mkdir": mkdir,
    "mkdirat": mkdirat,
    "mknod": mknod,
    "mknodat": mknodat,
    "unlink": unlink,
    "rmdir": rmdir,
    "unlinkat": unlinkat,
    "rename": rename,
    "renameat": renameat,
    "renameat2": renameat2,
    "link": link,
    "linkat": linkat,
    "symlink": symlink,
    "symlinkat": symlinkat,
}
