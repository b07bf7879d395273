"""Opening files: the broker opens the pinned object and hands the descriptor over."""

import errno
import os
import stat
from functools import lru_cache

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.abi.structs import OPEN_HOW
from helm_sentry.broker import beneath, terminals
from helm_sentry.broker.action import Action, Inject, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.path_descriptors import OWN_OBJECT as OWN_OBJECT
from helm_sentry.broker.path_descriptors import open_path
from helm_sentry.broker.paths import MAX_LINKS, Pinned
from helm_sentry.decode.operations import file_operation, opening
from helm_sentry.intercept.process_tree import umask_of
from helm_sentry.operation import Kind

_ATTEMPTS = 64  # how often a name may change between the look and the create before the call is refused
_TTY = os.makedev(5, 0)
_PROMPT_MAJORS = frozenset({1, 5, *range(136, 144)})  # memory devices, terminals: opening them does not wait
# Not part of the object's path any more once it is pinned; O_NOCTTY keeps the terminal from becoming ours.
_SPENT = os.O_CREAT | os.O_NOFOLLOW
_MODE_BITS, _FLAG_BITS = 0o7777, 0x7FFFFFFF  # the rest is ignored, but for openat2, which refuses it
_OURS = os.O_CLOEXEC | os.O_NOCTTY
# Opens for reading whose decision the compiled receiver may repeat; the same list is in native/receiver.c.
_REPEATABLE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK | os.O_DIRECTORY


def open_(call: Call) -> Action | Later:
    """open(2)."""
    return _open(call, AT_FDCWD, 0, call.uint32(1), call.uint32(2))


def creat(call: Call) -> Action | Later:
    """creat(2)."""
    return _open(call, AT_FDCWD, 0, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, call.uint32(1))


def openat(call: Call) -> Action | Later:
    """openat(2)."""
    return _open(call, call.int32(0), 1, call.uint32(2), call.uint32(3))


def openat2(call: Call) -> Action | Later:
    """openat2(2); the struct is copied once, an unknown longer one is refused as the kernel does."""
    size = call.args[3]
    if size < OPEN_HOW.size:
        raise OSError(errno.EINVAL, "open_how is too short")
    if size > 4096:
        raise OSError(errno.E2BIG, "open_how is too long")
    raw = call.read(call.args[2], size)
    if any(raw[OPEN_HOW.size :]):
        raise OSError(errno.E2BIG, "open_how has unknown members")
    open_flags, mode, resolve = OPEN_HOW.unpack_from(raw)
    _require_known(_unknown_how(open_flags, mode, resolve))
    if open_flags & flags.O_PATH:
        # Such a descriptor cannot be handed over (ADDFD takes none), and to continue the call would be to let the
        # struct be read again: callers fall back to openat, as on a kernel that is older.
        raise OSError(errno.ENOSYS, "not offered with O_PATH")
    path = call.string(1)
    if path.startswith(b"/") and resolve & flags.RESOLVE_BENEATH:  # refused before the directory is looked at
        raise OSError(errno.EXDEV, "nothing beneath a directory is absolute")
    return _resolve_and_open(call, call.int32(0), path, open_flags, mode, resolve)


def _open(call: Call, directory: int, index: int, open_flags: int, mode: int) -> Action | Later:
    """Do what the three calls without a struct have in common; the path is the argument `index`."""
    _require_known(_unknown_flags(open_flags, mode))
    if open_flags & flags.O_PATH:
        open_flags &= flags.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return open_path(call, directory, call.string(index), open_flags)
    return _resolve_and_open(call, directory, call.string(index), open_flags & _FLAG_BITS, mode & _MODE_BITS)


def _resolve_and_open(
    call: Call, directory: int, path: bytes, open_flags: int, mode: int, resolve: int = 0
) -> Action | Later:
    if open_flags & os.O_CREAT:
        return _create(call, directory, path, open_flags, mode, resolve)
    pinned = call.pin(directory, path, follow=not open_flags & os.O_NOFOLLOW, resolve=resolve)
    return _open_pinned(call, pinned, open_flags, mode)


@lru_cache(maxsize=256)
def _unknown_flags(open_flags: int, mode: int) -> int:
    """Ask the kernel whether it takes these flags: it looks at them before it looks at the path, which is empty."""
    try:
        return libc.openat(AT_FDCWD, b"", open_flags, mode)
    except OSError as error:
        return error.errno or errno.EINVAL


@lru_cache(maxsize=256)
def _unknown_how(open_flags: int, mode: int, resolve: int) -> int:
    try:
        return libc.openat2(AT_FDCWD, b"", open_flags, mode, resolve)
    except OSError as error:
        return error.errno or errno.EINVAL


def _require_known(code: int) -> None:
    if code != errno.ENOENT:
        raise OSError(code, os.strerror(code))


def _open_pinned(call: Call, pinned: Pinned, open_flags: int, mode: int = 0) -> Action | Later:
    """Judge and open an object that is there, or report why it is not."""
    if pinned.descriptor < 0:
        # To say that something is not there is to let the agent look, no more.
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
        call.require(pinned)
        raise OSError(errno.ENOENT, "nothing there")
    status = os.fstat(pinned.descriptor)
    call.object = f"{status.st_dev:x}:{status.st_ino:x}"
    operations = opening(open_flags, pinned.path, True, stat.S_ISDIR(status.st_mode))
    changes = bool(open_flags & (os.O_TRUNC | flags.O_TMPFILE_BIT))
    if pinned.anonymous:
        call.judge_builtin(OWN_OBJECT, *operations)
    elif stat.S_ISCHR(status.st_mode) and terminals.is_anothers(call, status.st_rdev):
        call.judge_builtin(terminals.OTHERS, *operations, refusal=errno.EACCES)
    else:
        call.judge(*operations, effect=changes and not pinned.error)
    call.require(pinned)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ENOTDIR if open_flags & os.O_DIRECTORY else errno.ELOOP, "a link, and O_NOFOLLOW")
    if open_flags & os.O_ACCMODE == os.O_RDONLY and (ours := call.broker.names.open_instead(pinned.path)) >= 0:
        return _hand_over(call, call.hold(ours), open_flags)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == _TTY:
        return _hand_over(
            call, call.hold(terminals.open_controlling(call.tid, (open_flags & ~_SPENT) | _OURS)), open_flags
        )
    if open_flags & flags.O_TMPFILE_BIT:
        os.umask(umask_of(call.tid))
    if may_wait(status) and not open_flags & os.O_NONBLOCK:
        return Later(lambda: _open_waiting(call, pinned, open_flags))
    opened = call.broker.resolver.reopen(pinned, (open_flags & ~_SPENT) | _OURS, mode)
    if not (open_flags & ~_REPEATABLE or pinned.anonymous):
        call.broker.repeat(call, status)
    elif not pinned.anonymous:
        beneath.teach_opening(call, open_flags, status)
    return _hand_over(call, call.hold(opened), open_flags)


def _open_waiting(call: Call, pinned: Pinned, open_flags: int) -> Action:
    """Open something whose other side may take its time."""
    ours = (open_flags & ~_SPENT) | _OURS
    opened = call.broker.workers.wait(call, lambda: libc.openat(AT_FDCWD, pinned.link, ours))
    return _hand_over(call, call.hold(opened), open_flags)


def _create(call: Call, directory: int, path: bytes, open_flags: int, mode: int, resolve: int) -> Action | Later:
    """Open with O_CREAT. The name is created exclusively; if it appeared meanwhile, it is judged anew."""
    if path.endswith(b"/") and path.rstrip(b"/").rpartition(b"/")[2] not in (b"", b".", b".."):
        return _refuse_slash(call, _place(call, directory, path, resolve), open_flags)
    follow = not open_flags & (os.O_NOFOLLOW | os.O_EXCL)
    for _ in range(_ATTEMPTS):
        pinned = call.pin(directory, path, follow=follow, resolve=resolve)
        if not pinned.error:
            return _open_existing(call, pinned, open_flags)
        if pinned.leaf.endswith(b"/"):  # the text of a link ends in a slash
            return _refuse_slash(call, pinned, open_flags)
        if pinned.error != errno.ENOENT or resolve or pinned.parent < 0:
            call.judge(file_operation(Kind.FILE_STAT, pinned.path))
            if pinned.error == errno.ENOENT and resolve:
                pinned = _restricted_place(call, directory, path, resolve, follow)
            call.require(pinned)
        if (created := _create_new(call, pinned, open_flags, mode)) is not None:
            return created
    raise OSError(errno.EAGAIN, "the name keeps changing")


def _create_new(call: Call, place: Pinned, open_flags: int, mode: int) -> Inject | None:
    """Judge and create a file, None when there is one by now."""
    # What was judged in an earlier round is another object, with a record of its own.
    call.resumed, call.sequence = call.resumed or call.sequence >= 0, -1
    call.about = (f"of mode {mode & 0o7777:04o}",)
    call.judge(*opening(open_flags, place.path, exists=False, directory=False), effect=True)
    os.umask(umask_of(call.tid))
    ours = (open_flags & ~os.O_TRUNC) | os.O_EXCL | _OURS  # O_EXCL follows no link either
    try:
        created = call.hold(libc.openat(place.parent, place.leaf, ours, mode))
    except FileExistsError:
        if open_flags & os.O_EXCL:
            raise
        return None
    status = os.fstat(created)
    call.object = f"{status.st_dev:x}:{status.st_ino:x}"
    beneath.teach_opening(call, open_flags, None)
    return _hand_over(call, created, open_flags)


def _refuse_slash(call: Call, place: Pinned, open_flags: int) -> Action:
    call.judge(*opening(open_flags, place.path, exists=False, directory=False))
    if place.error not in (errno.ENOENT, errno.ENOTDIR) or place.parent < 0:
        call.require(place)
    os.stat(b".", dir_fd=place.parent)  # EACCES where the agent may not search
    raise OSError(errno.EISDIR, "a file cannot be created as a directory")


def _open_existing(call: Call, pinned: Pinned, open_flags: int) -> Action | Later:
    """Go on with O_CREAT when the object is already there."""
    is_directory = stat.S_ISDIR(pinned.status().st_mode)
    if open_flags & os.O_EXCL:  # to say so is to let the agent look, no more
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
        raise OSError(errno.EEXIST, "already there")
    if is_directory:
        call.judge(*opening(open_flags, pinned.path, exists=True, directory=True))
        raise OSError(errno.EISDIR, "already there")
    return _open_pinned(call, pinned, open_flags & ~os.O_CREAT)


def _place(call: Call, directory: int, path: bytes, resolve: int) -> Pinned:
    return _restricted_place(call, directory, path, resolve, False) if resolve else call.place(directory, path)


def _restricted_place(call: Call, directory: int, path: bytes, resolve: int, follow: bool) -> Pinned:
    """Pin the directory of a name that is missing, under the RESOLVE_* the agent asked for."""
    for _ in range(MAX_LINKS):
        body = path.rstrip(b"/")
        head = body[: body.rfind(b"/") + 1]
        leaf = path[len(head) :]
        parent = call.pin(directory, head or b".", resolve=resolve)
        name = f"{parent.path.rstrip('/')}/{os.fsdecode(leaf.rstrip(b'/'))}"
        if parent.error or not follow or (target := _text_of_link(parent.descriptor, leaf)) is None:
            return Pinned(name, parent=parent.descriptor, leaf=leaf, error=parent.error)
        path = target if target.startswith(b"/") else head + target
    raise OSError(errno.ELOOP, "too many links")


def _text_of_link(directory: int, leaf: bytes) -> bytes | None:
    try:
        return os.readlink(leaf, dir_fd=directory)
    except OSError:
        return None


def _hand_over(call: Call, descriptor: int, open_flags: int) -> Inject:
    return Inject(descriptor, close_on_exec=bool(open_flags & os.O_CLOEXEC))


def may_wait(status: os.stat_result) -> bool:
    """Whether opening an object can wait for somebody else."""
    if stat.S_ISCHR(status.st_mode):
        return os.major(status.st_rdev) not in _PROMPT_MAJORS
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISBLK(status.st_mode)


HANDLERS = {"open": open_, "creat": creat, "openat": openat, "openat2": openat2}
