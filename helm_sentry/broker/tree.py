"""Changing directories' entries: each name is acted on in its pinned directory."""

import errno
import os
import stat
from collections.abc import Callable

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.broker import beneath
from helm_sentry.broker.action import SUCCESS, Action
from helm_sentry.broker.call import Call
from helm_sentry.broker.paths import Pinned
from helm_sentry.decode.operations import file_operation, tree_operation
from helm_sentry.intercept.process_tree import umask_of
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.pattern import printable


def mkdir(call: Call) -> Action:
    """mkdir(2)."""
    return _mkdir(call, AT_FDCWD, call.string(0), call.uint32(1))


def mkdirat(call: Call) -> Action:
    """mkdirat(2)."""
    return _mkdir(call, call.int32(0), call.string(1), call.uint32(2))


def mknod(call: Call) -> Action:
    """mknod(2)."""
    return _mknod(call, (AT_FDCWD, 0), call.uint32(1), call.uint32(2))


def mknodat(call: Call) -> Action:
    """mknodat(2)."""
    return _mknod(call, (call.int32(0), 1), call.uint32(2), call.uint32(3))


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
    return _rename(call, (AT_FDCWD, 0), (AT_FDCWD, 1), 0)


def renameat(call: Call) -> Action:
    """renameat(2)."""
    return _rename(call, (call.int32(0), 1), (call.int32(2), 3), 0)


def renameat2(call: Call) -> Action:
    """renameat2(2)."""
    return _rename(call, (call.int32(0), 1), (call.int32(2), 3), call.uint32(4))


def link(call: Call) -> Action:
    """link(2)."""
    return _link(call, (AT_FDCWD, 0), (AT_FDCWD, 1), 0)


def linkat(call: Call) -> Action:
    """linkat(2)."""
    return _link(call, (call.int32(0), 1), (call.int32(2), 3), call.uint32(4))


def symlink(call: Call) -> Action:
    """symlink(2)."""
    return _symlink(call, (AT_FDCWD, 1))


def symlinkat(call: Call) -> Action:
    """symlinkat(2)."""
    return _symlink(call, (call.int32(1), 2))


_NODES = (0, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_RENAME_FLAGS = flags.RENAME_NOREPLACE | flags.RENAME_WHITEOUT
_Name = tuple[int, int]  # a directory's descriptor, and which argument is the path


def _mkdir(call: Call, directory: int, path: bytes, mode: int) -> Action:
    place = call.place(directory, path)
    call.about = (f"a directory of mode {mode & 0o7777:04o}",)
    _judge_new_name(call, place, file_operation(Kind.FILE_CREATE, place.path))
    call.require(place)
    os.umask(umask_of(call.tid))
    os.mkdir(place.leaf, mode & 0o7777, dir_fd=place.parent)
    return SUCCESS


def _mknod(call: Call, name: _Name, mode: int, device: int) -> Action:
    mode &= 0xFFFF  # umode_t
    if stat.S_IFMT(mode) not in _NODES:  # the kernel looks at that first
        raise OSError(errno.EPERM if stat.S_ISDIR(mode) else errno.EINVAL, "not made by mknod")
    place = call.place(name[0], call.string(name[1]))
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    what = f"device {os.major(device)}:{os.minor(device)} " if is_device else ""
    call.about = (f"{what}of mode {stat.filemode(mode)}",)
    kind = Kind.FILE_MKNOD if is_device else Kind.FILE_CREATE
    _judge_new_name(call, place, file_operation(kind, place.path))
    call.require(place)
    os.umask(umask_of(call.tid))
    os.mknod(place.leaf, mode, device, dir_fd=place.parent)
    return SUCCESS


def _judge_new_name(call: Call, place: Pinned, *operations: Operation) -> None:
    """Judge making something under a name. That it is taken, the agent may hear if it may look."""
    look = file_operation(Kind.FILE_STAT, place.path)
    if not call.decide(*operations).allowed and _taken(place) and call.decide(look).allowed:
        call.judge(look)
        raise OSError(errno.EEXIST, "already there")
    call.judge(*operations, effect=not place.error)


def _taken(place: Pinned) -> bool:
    if place.error or place.descriptor >= 0:
        return not place.error
    try:
        os.stat(place.leaf.rstrip(b"/"), dir_fd=place.parent, follow_symlinks=False)
    except OSError:
        return False
    return True


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


def _rename(call: Call, old_name: _Name, new_name: _Name, rename_flags: int) -> Action:
    others = rename_flags & ~flags.RENAME_EXCHANGE
    if others & ~_RENAME_FLAGS or (others and others != rename_flags):
        raise OSError(errno.EINVAL, "unknown flags, or some that exclude each other")
    old = call.place(old_name[0], call.string(old_name[1]))
    new = _second_place(call, new_name, old)
    goes, comes = _naming(old), _naming(new)
    # An overwritten file is deleted; whether there is one can change until the call, unless the kernel must refuse.
    operations = [goes(Kind.FILE_RENAME, old.path), goes(Kind.FILE_CREATE, new.path)]
    if rename_flags & flags.RENAME_EXCHANGE:
        operations += [comes(Kind.FILE_RENAME, new.path), comes(Kind.FILE_CREATE, old.path)]
    elif not rename_flags & flags.RENAME_NOREPLACE:
        operations.append(tree_operation(Kind.FILE_DELETE, new.path))
    call.judge(*operations, effect=not old.error and not new.error)
    call.require(old)
    call.require(new)
    libc.renameat2(old.parent, old.leaf, new.parent, new.leaf, rename_flags)
    return SUCCESS


def _naming(place: Pinned) -> Callable[[Kind, str], Operation]:
    """Return what makes the operation of moving an entry: a directory takes along what is beneath it.

    An entry that is no directory stays none until the call is made. Whoever could make it one is outside the run, or
    has its own rename or mkdir judged and carried out before or after this one: see `_one_at_a_time`.
    """
    if place.error:
        return file_operation  # the call fails
    try:
        status = os.stat(place.leaf, dir_fd=place.parent, follow_symlinks=False)
    except OSError:
        return tree_operation
    return tree_operation if stat.S_ISDIR(status.st_mode) else file_operation


def _link(call: Call, old_name: _Name, new_name: _Name, at_flags: int) -> Action:
    if at_flags & ~(flags.AT_SYMLINK_FOLLOW | flags.AT_EMPTY_PATH):
        raise OSError(errno.EINVAL, "unknown flags")
    source = _link_source(call, old_name[0], call.string(old_name[1]), at_flags)
    place = _second_place(call, new_name, source)
    operations = file_operation(Kind.FILE_LINK, source.path), file_operation(Kind.FILE_CREATE, place.path)
    if source.error:
        call.judge(*operations)
        call.require(source)
    _judge_new_name(call, place, *operations)
    call.require(place)
    libc.linkat(AT_FDCWD, source.link, place.parent, place.leaf, flags.AT_SYMLINK_FOLLOW)
    return SUCCESS


def _second_place(call: Call, name: _Name, first: Pinned) -> Pinned:
    """Pin the other name of a call; the kernel reports what is wrong with the first one before."""
    try:
        second = call.place(name[0], call.string(name[1]))
        if second.error:
            second.error = first.error or _search_error(first) or second.error
        return second
    except OSError:
        if error := first.error or _search_error(first):
            call.judge(file_operation(Kind.FILE_STAT, first.path))
            raise OSError(error, os.strerror(error)) from None
        raise


def _search_error(place: Pinned) -> int:
    """Return what keeps the caller from looking for an entry in a pinned directory, 0 for nothing."""
    try:
        if place.parent >= 0:
            os.stat(".", dir_fd=place.parent)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _link_source(call: Call, directory: int, path: bytes, at_flags: int) -> Pinned:
    if not path and at_flags & flags.AT_EMPTY_PATH:
        raise OSError(errno.ENOENT, "linking a bare descriptor takes a capability the agent does not have")
    return call.pin(directory, path, follow=bool(at_flags & flags.AT_SYMLINK_FOLLOW))


def _symlink(call: Call, name: _Name) -> Action:
    target = call.string(0)
    if not target:
        raise OSError(errno.ENOENT, "empty target")
    place = call.place(name[0], call.string(name[1]))
    call.about = (f"a link that leads to [{printable(os.fsdecode(target))}]",)
    _judge_new_name(call, place, file_operation(Kind.FILE_CREATE, place.path))
    call.require(place)
    os.symlink(target, place.leaf, dir_fd=place.parent)
    return SUCCESS


def _one_at_a_time(handler: Callable[[Call], Action]) -> Callable[[Call], Action]:
    """Keep other calls from changing entries between the look at one and what is done with it."""

    def handle(call: Call) -> Action:
        try:
            with call.broker.entries:
                return handler(call)
        finally:  # an error of the kernel's, such as that the name is taken, changes nothing about the decision
            beneath.teach_entry(call)

    return handle


HANDLERS = {
    name: _one_at_a_time(handler)
    for name, handler in {
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
    }.items()
}
