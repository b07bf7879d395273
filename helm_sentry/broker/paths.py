"""From a path an agent wrote to an object the supervisor holds.

A pinned object is an `O_PATH` descriptor and the canonical path the kernel gives for it. The policy judges that path;
the operation is then carried out on that descriptor. Renames, links and rewritten strings in between change nothing.

`/proc/self`, `/proc/thread-self` and the magic links beneath /proc mean the agent's, not ours: a path that touches
them is walked one component at a time.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from helm_sentry.abi import flags, libc
from helm_sentry.broker.memory import Unreadable
from helm_sentry.intercept.process_tree import is_descendant, thread_group

MAX_LINKS = 40  # fs/namei.c MAXSYMLINKS
_PIN = os.O_CLOEXEC | flags.O_PATH
_PIN_DIRECTORY = _PIN | os.O_DIRECTORY
_DELETED = b" (deleted)"
_UNNAMED = (b"pipe:", b"socket:", b"anon_inode:", b"/memfd:")
_SPECIAL = (b"", b".", b"..")


@dataclass(slots=True)
class Pinned:
    """An object held by descriptor, or the fact that there is none.

    Attributes:
        path: the canonical path to judge; the process's own entry in /proc is named /proc/self.
        descriptor: `O_PATH` descriptor, -1 when the object does not exist or cannot be reached.
        parent: `O_PATH` descriptor of the directory that holds or would hold it, -1 when unknown.
        leaf: its name in `parent`, with the trailing slashes the agent wrote.
        error: errno the kernel gives for an object that cannot be reached, 0 otherwise.
        anonymous: the object has no name in a file system (pipe, socket, memfd, deleted file) and was reached
            through the agent's own descriptor.
    """

    path: str
    descriptor: int = -1
    parent: int = -1
    leaf: bytes = b""
    error: int = 0
    anonymous: bool = False

    @property
    def link(self) -> bytes:
        """A path that leads to the pinned object itself, for calls that take only paths."""
        return b"/proc/self/fd/%d" % self.descriptor

    def status(self) -> os.stat_result:
        """Return the object's status."""
        return os.fstat(self.descriptor)


@dataclass(slots=True)
class Resolver:
    """Resolves paths as one agent thread sees them.

    Attributes:
        guardian: process id whose descendants are the agent.
        proc_mounts: paths of the mounted proc file systems, with a trailing slash.
        proc_devices: their st_dev.
    """

    guardian: int
    proc_mounts: tuple[bytes, ...] = field(default_factory=lambda: tuple(_proc_mounts()))
    proc_devices: frozenset[int] = field(init=False)
    _proc: int = field(init=False)
    _held: int = field(init=False)

    def __post_init__(self) -> None:
        # Kept open: each look-up below them is two path components shorter.
        self._proc = os.open("/proc", _PIN_DIRECTORY)
        self._held = os.open("/proc/self/fd", _PIN_DIRECTORY)
        # A single file of proc may be mounted over itself, as service managers do to make it read-only.
        self.proc_devices = frozenset(os.stat(path.rstrip(b"/") or b"/").st_dev for path in self.proc_mounts)

    def pin(
        self, keep: list[int], tid: int, directory: int, path: bytes, *, follow: bool = True, resolve: int = 0
    ) -> Pinned:
        """Pin the object a path names.

        Args:
            keep: receives every descriptor opened, for the caller to close.
            tid: the thread whose working directory and descriptors count.
            directory: its descriptor number or AT_FDCWD.
            path: the path as the agent wrote it, not empty.
            follow: whether a link in the last place is followed.
            resolve: RESOLVE_* the agent asked for.

        Raises:
            OSError: EBADF or ENOTDIR for a bad `directory`, ENOENT for an empty path.
            Unreadable: the thread hides its directories from the supervisor.
        """
        if not path:
            raise OSError(errno.ENOENT, "empty path")
        base = self._base(keep, tid, directory, path, resolve)
        return self._resolve(keep, tid, base, path, follow, resolve)

    def _resolve(self, keep: list[int], tid: int, base: int, path: bytes, follow: bool, resolve: int = 0) -> Pinned:
        """Resolve below `base`, a descriptor of ours or AT_FDCWD for an absolute path."""
        try:
            descriptor = libc.openat2(
                base, path, _PIN if follow else _PIN | os.O_NOFOLLOW, 0, resolve | flags.RESOLVE_NO_MAGICLINKS
            )
        except OSError as error:
            if base != flags.AT_FDCWD:
                _require_directory(base)
            if resolve:  # the kernel has the say; what it found is judged where the path leads without restrictions
                root = base if resolve & flags.RESOLVE_IN_ROOT else None
                with contextlib.suppress(OSError):  # of a path through a pipe or socket
                    seen = self._walk(keep, tid, base, _below(path, resolve), follow, root)
                    if seen.path.startswith("/"):
                        return Pinned(seen.path, error=error.errno or errno.EACCES)
                raise  # it leads to a pipe or socket of the agent's, of which rules do not speak
            if error.errno == errno.ENOENT and (absent := self._absent(keep, base, path)):
                return absent
            return self._walk(keep, tid, base, path, follow)
        keep.append(descriptor)
        name = self.name_of(descriptor)
        if name.startswith(self.proc_mounts) or name.endswith(_DELETED):
            return self._walk(keep, tid, base, path, follow)
        return Pinned(name.decode("utf-8", "surrogateescape"), descriptor)

    def place(self, keep: list[int], tid: int, directory: int, path: bytes) -> Pinned:
        """Pin the directory that holds, or would hold, the last component of a path, which is not followed.

        The result has `parent` and `leaf`, or an `error`; `descriptor` is not set.
        """
        if not path:
            raise OSError(errno.ENOENT, "empty path")
        head, leaf = _split(path)
        if leaf.rstrip(b"/") in _SPECIAL:  # `.`, `..` and `/` name a directory by itself: the kernel refuses or not
            whole = self.pin(keep, tid, directory, path)
            whole.parent, whole.leaf = self._base(keep, tid, directory, path), path
            return whole
        base = self._base(keep, tid, directory, path)
        if base != flags.AT_FDCWD:
            _require_directory(base)
        parent = self._resolve(keep, tid, base, head, follow=True) if head else self._named(tid, base, jumped=True)
        name = posixpath.join(parent.path, os.fsdecode(leaf.rstrip(b"/")))
        if parent.error:
            return Pinned(name, error=parent.error)
        return Pinned(name, parent=parent.descriptor, leaf=leaf)

    def descriptor(self, keep: list[int], tid: int, number: int) -> Pinned:
        """Pin what one of the agent's descriptors (or AT_FDCWD) refers to.

        Raises:
            OSError: EBADF when there is no such descriptor.
        """
        opened = self._open_link(keep, tid, number)
        return self._named(tid, opened, jumped=True)

    def opened(self, keep: list[int], tid: int, number: int) -> Pinned:
        """Pin what a descriptor refers to, for calls that want one that was really opened.

        Raises:
            OSError: EBADF for no descriptor, AT_FDCWD, or a descriptor of O_PATH.
        """
        pinned = self.descriptor(keep, tid, number)
        if number < 0 or is_path_descriptor(tid, number):
            raise OSError(errno.EBADF, "not an open file")
        return pinned

    def name_of(self, descriptor: int) -> bytes:
        """Return the kernel's name for the object of one of our own descriptors."""
        return os.readlink(b"%d" % descriptor, dir_fd=self._held)

    def reopen(self, pinned: Pinned, open_flags: int, mode: int = 0) -> int:
        """Open a pinned object itself, whatever its name leads to by now."""
        return os.open(b"%d" % pinned.descriptor, open_flags, mode, dir_fd=self._held)

    def process_of(self, descriptor: int) -> int:
        """Return the process id whose directory in /proc one of our own descriptors is, 0 when it is none."""
        name = self.name_of(descriptor)
        here = os.fstat(descriptor).st_dev in self.proc_devices
        return self._process_in(name) or 0 if here and posixpath.basename(name).isdigit() else 0

    def owns_process(self, pid: int) -> bool:
        """Whether a process or thread id belongs to the agent."""
        return is_descendant(pid, self.guardian)

    def _watches(self, pid: int) -> bool:
        """Whether a process or thread id belongs to the supervisor, which no policy can open to the agent."""
        try:
            return thread_group(pid) in (os.getpid(), self.guardian)
        except (ProcessLookupError, ValueError):
            return False

    def _base(self, keep: list[int], tid: int, directory: int, path: bytes, resolve: int = 0) -> int:
        if path.startswith(b"/") and not resolve & (flags.RESOLVE_IN_ROOT | flags.RESOLVE_BENEATH):
            return flags.AT_FDCWD
        return self._open_link(keep, tid, directory)

    def _open_link(self, keep: list[int], tid: int, number: int) -> int:
        link = b"%d/cwd" % tid if number == flags.AT_FDCWD else b"%d/fd/%d" % (tid, number)
        try:
            opened = os.open(link, _PIN, dir_fd=self._proc)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Unreadable from None
            raise OSError(errno.EBADF, "no such descriptor") from None
        keep.append(opened)
        return opened

    def _absent(self, keep: list[int], base: int, path: bytes) -> Pinned | None:
        """Answer the most common failure, a name missing in a directory that is there, in two more opens.

        Returns None when it takes a walk to know: a dangling link, a missing directory, anything in /proc.
        """
        head, leaf = _split(path)
        if leaf.rstrip(b"/") in _SPECIAL:
            return None
        parent = base
        try:
            if head:
                parent = libc.openat2(base, head, _PIN_DIRECTORY, 0, flags.RESOLVE_NO_MAGICLINKS)
                keep.append(parent)
            name = self.name_of(parent)
        except OSError:
            return None
        if name.startswith(self.proc_mounts) or name.endswith(_DELETED) or _exists(parent, leaf):
            return None
        full = posixpath.join(os.fsdecode(name), os.fsdecode(leaf.rstrip(b"/")))
        return Pinned(full, parent=parent, leaf=leaf, error=errno.ENOENT)

    def _walk(self, keep: list[int], tid: int, base: int, path: bytes, follow: bool, root: int | None = None) -> Pinned:
        """Resolve one component at a time; see path_resolution(7). `root` takes the place of the root directory."""
        current = self._root(keep) if path.startswith(b"/") else base
        todo = deque(path.split(b"/"))
        links, jumped, parent, leaf = 0, current == base, -1, b""
        while todo:
            name = todo.popleft()
            if name in (b"", b"."):
                # `.` must be a directory that may be searched; a trailing slash asks only that it is a directory.
                if (name or not todo) and (code := _not_entered(current, search=bool(name))):
                    refused = self._failed(tid, current, [], code)
                    refused.parent, refused.leaf = parent, leaf + b"/" * (not name)
                    return refused
                continue
            if name == b".." and root is not None and os.path.samestat(os.fstat(current), os.fstat(root)):
                continue
            last = not any(part not in (b"", b".") for part in todo)
            try:
                found = libc.openat(current, name, _PIN | os.O_NOFOLLOW)
            except OSError as error:
                absent = self._failed(tid, current, [name, *todo], error.errno or errno.EACCES)
                if absent.error == errno.ENOENT and not any(
                    todo
                ):  # but for slashes the last: `name/.` is missing before anything can be made there
                    absent.parent, absent.leaf = current, name + b"/" * len(todo)
                return absent
            keep.append(found)
            status = os.fstat(found)
            if stat.S_ISLNK(status.st_mode) and (follow or not last or todo):
                links += 1
                if links > MAX_LINKS:
                    return self._failed(tid, current, [name, *todo], errno.ELOOP)
                target = self._link_target(tid, found, status)
                if target is None:  # a magic link: not a text but a jump, the agent's own only
                    jump = self._jump(keep, tid, current, name, todo)
                    if isinstance(jump, Pinned):
                        return jump
                    current, jumped, parent, leaf = jump, True, current, name
                    continue
                todo.extendleft(reversed(target.split(b"/")))
                if target.startswith(b"/"):
                    current = self._root(keep) if root is None else root
                jumped = False
                continue
            parent, leaf = current, name
            current, jumped = found, False
        pinned = self._named(tid, current, jumped)
        pinned.parent, pinned.leaf = parent, leaf
        return pinned

    def link_text(self, tid: int, pinned: Pinned) -> bytes:
        """Return what readlink(2) gives the agent for a pinned symbolic link.

        Raises:
            OSError: EINVAL when the object is not a link.
        """
        status = pinned.status()
        if not stat.S_ISLNK(status.st_mode):
            raise OSError(errno.EINVAL, "not a link")
        text = self._link_target(tid, pinned.descriptor, status)
        return text if text is not None else os.readlink(b"", dir_fd=pinned.descriptor)

    def _link_target(self, tid: int, link: int, status: os.stat_result) -> bytes | None:
        """Return the text of a link as the agent would see it, None for a magic link."""
        if status.st_dev not in self.proc_devices:
            return os.readlink(b"", dir_fd=link)
        name = posixpath.basename(self.name_of(link))
        if name == b"self":
            return b"%d" % thread_group(tid)
        if name == b"thread-self":
            return b"%d/task/%d" % (thread_group(tid), tid)
        where = self.name_of(link)
        if any(where.startswith(mount) and where[len(mount) :][:1].isdigit() for mount in self.proc_mounts):
            return None
        return os.readlink(b"", dir_fd=link)

    def _jump(self, keep: list[int], tid: int, current: int, name: bytes, todo: deque[bytes]) -> int | Pinned:
        where = self.name_of(current)
        owner = self._process_in(where)
        if owner is None or not self.owns_process(owner):
            return self._failed(tid, current, [name, *todo], errno.EACCES)
        try:
            opened = libc.openat(current, name, _PIN)
        except OSError as error:
            return self._failed(tid, current, [name, *todo], error.errno or errno.EACCES)
        keep.append(opened)
        return opened

    def _process_in(self, name: bytes) -> int | None:
        """Return the process id that a path in /proc names."""
        for mount in self.proc_mounts:
            if name.startswith(mount):
                digits = name[len(mount) :].split(b"/", 1)[0]
                return int(digits) if digits.isdigit() else None
        return None

    def _root(self, keep: list[int]) -> int:
        root = libc.openat(flags.AT_FDCWD, b"/", _PIN_DIRECTORY)
        keep.append(root)
        return root

    def _failed(self, tid: int, directory: int, rest: list[bytes], error: int) -> Pinned:
        # What fails with ENOTDIR is the file that stands where a directory should.
        parts = [os.fsdecode(part) for part in rest if part not in (b"", b".") and error != errno.ENOTDIR]
        if error == errno.ENOENT:  # tells about the first name that is missing; where the rest would lead is no matter
            parts = parts[:1]
        base = self._named(tid, directory, jumped=False).path
        if not base.startswith("/"):
            raise OSError(error, "there is nothing in a pipe or socket, whatever the policy says of it")
        return Pinned(posixpath.normpath(posixpath.join(base, *parts)), error=error)

    def _named(self, tid: int, descriptor: int, jumped: bool) -> Pinned:
        """Name an object that is already held; `jumped` when it was reached through the agent's own descriptor."""
        name = self.name_of(descriptor)
        if not name.startswith(b"/") or name.endswith(_DELETED):
            gone = os.fstat(descriptor).st_nlink == 0 or not name.startswith(b"/")
            if gone and not jumped:
                return Pinned(os.fsdecode(name.removesuffix(_DELETED)), descriptor, error=errno.ENOENT)
            path = os.fsdecode(name.removesuffix(_DELETED) if gone else name)
            return Pinned(path, descriptor, anonymous=gone and name.startswith(_UNNAMED))
        owner = self._process_in(name)
        if owner is not None and self._watches(owner):
            # What a process may do with its own entry the kernel would let the supervisor do with its memory here.
            return Pinned(f"/proc/{os.getpid()}/{self._inside(name)}".rstrip("/"), error=errno.EACCES)
        if owner is not None and self.owns_process(owner):
            return Pinned(f"/proc/self/{self._inside(name)}".rstrip("/"), descriptor)
        return Pinned(name.decode("utf-8", "surrogateescape"), descriptor)

    def _inside(self, name: bytes) -> str:
        """Return what follows the process id in a path in /proc."""
        mount = next(mount for mount in self.proc_mounts if name.startswith(mount))
        return os.fsdecode(name[len(mount) :].partition(b"/")[2])


def is_path_descriptor(tid: int, number: int) -> bool:
    """Whether a thread's descriptor is one of O_PATH.

    Raises:
        OSError: there is no such descriptor.
    """
    with open(f"/proc/{tid}/fdinfo/{number}", "rb", buffering=0) as file:
        fields = file.read(512)
    return bool(int(fields.partition(b"flags:")[2].split()[0], 8) & flags.O_PATH)


def _require_directory(descriptor: int) -> None:
    """Raise ENOTDIR for a descriptor of the agent's that nothing can be beneath, whatever the policy says of it."""
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOTDIR, "not a directory")


def _not_entered(descriptor: int, search: bool) -> int:
    """Return the errno of using a pinned object as a directory, 0 when it is one."""
    if not search:
        return 0 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else errno.ENOTDIR
    try:
        os.close(libc.openat(descriptor, b".", _PIN_DIRECTORY))
    except OSError as error:
        return error.errno or errno.EACCES
    return 0


def _exists(directory: int, leaf: bytes) -> bool:
    """Whether there is anything under a name, a dangling link included; any doubt counts as yes."""
    try:
        os.stat(leaf.rstrip(b"/"), dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _below(path: bytes, resolve: int) -> bytes:
    """Return the path to walk from the directory that RESOLVE_IN_ROOT and RESOLVE_BENEATH take as the root."""
    return path.lstrip(b"/") or b"." if resolve & (flags.RESOLVE_IN_ROOT | flags.RESOLVE_BENEATH) else path


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return what leads to the last component, and that component with its trailing slashes."""
    body = path.rstrip(b"/")
    if not body:
        return b"", path
    cut = body.rfind(b"/") + 1
    return path[:cut], path[cut:]


def _proc_mounts() -> Iterator[bytes]:
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            before, _, after = line.partition(b" - ")
            if after.startswith(b"proc "):
                path = before.split()[4].decode("unicode_escape").encode("latin-1")
                yield path.rstrip(b"/") + b"/"
