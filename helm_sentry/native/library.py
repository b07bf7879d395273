"""The compiled receiver as Python sees it. `receiver.h` says what each function does.

The library is part of the package where a C compiler was there when it was built; `HELM_SENTRY_NATIVE=off` in the
supervisor's environment leaves it aside. Without it the broker does the same work, more slowly.
"""

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from ctypes import Structure, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from helm_sentry.abi import structs, syscalls
from helm_sentry.abi.arch import Arch
from helm_sentry.audit.line import Template
from helm_sentry.audit.record import FIRST_PREV
from helm_sentry.intercept.injection import PLACE
from helm_sentry.intercept.interceptor import Connecting, Notification, Unserved
from helm_sentry.intercept.notify import Listener

if TYPE_CHECKING:  # loaded by the runs that have one
    from helm_sentry.intercept.tracer import Tracer

_PATH = os.path.join(os.path.dirname(__file__), "libreceiver.so")
_ANOTHER_STOP = 2
_MISSED = (-errno.ENOENT, -errno.EINTR)
_MOST_KNOWN = 4096  # half of PLACES in receiver.c
_MOST_HELPERS = 3
_MOST_BEGUN = 1024  # MOST_BEGUN in connects.h
_REPEATED = (  # `struct numbers` in receiver.h
    *("open", "openat", "stat", "lstat", "newfstatat", "socket", "connect"),
    *("statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
    *("mkdir", "mkdirat", "unlink", "rmdir", "unlinkat", "rename", "renameat", "renameat2"),
)
_GOES_ON = 0  # in the place of a file type
MISSING = 0
"""In the place of a file type: there is nothing of that name."""


class _Text(Structure):
    _fields_ = (("bytes", c_char_p), ("size", c_size_t))


class _Decided(Structure):
    _fields_ = (
        ("nr", c_int32),
        ("type", c_uint32),
        ("manner", c_uint32),
        ("beneath", c_uint32),
        ("device", c_uint64),
        ("inode", c_uint64),
        *((name, _Text) for name in ("name", "action", "ops", "reason", "target", "end")),
    )


class _Numbers(Structure):
    _fields_ = tuple((name, c_int32) for name in _REPEATED)


class _Address(Structure):
    _fields_ = (("size", c_uint32), ("bytes", c_char * 28))

    def raw(self) -> bytes:
        """Return the sockaddr."""
        return ctypes.string_at(ctypes.addressof(self) + _Address.bytes.offset, self.size)


class _Refusal(Structure):
    _fields_ = (("sequence", c_int64), ("error", c_int64), ("descriptor", c_int32), ("address", _Address))

    def of(self, notification: Notification) -> Unserved:
        """Return what is left to be done."""
        connecting = None if self.error else Connecting(self.descriptor, self.address.raw())
        return Unserved(notification, self.sequence, self.error, connecting)


class _Begun(Structure):
    _fields_ = (("cookie", c_uint64), ("sequence", c_int64), ("address", _Address))


class _Counts(Structure):
    _fields_ = tuple((name, c_uint64) for name in ("recorded", "unjudged", "continued", "received"))


class Counts(NamedTuple):
    """What became of the calls that arrived at a receiver.

    Attributes:
        received: all of them.
        continued: those that the kernel was let to carry out.
        recorded: those whose record was written there.
        unjudged: those answered without a record, because they asked for nothing that a policy decides.
    """

    received: int = 0
    continued: int = 0
    recorded: int = 0
    unjudged: int = 0


class Attempt(Enum):
    """What came of a connect that was not to take long: unless it is done, it must be made where it may wait."""

    NONE = auto()
    """It was not made."""
    BEGUN = auto()
    """It was interrupted; of TCP, it goes on by itself."""
    DONE = auto()
    """The socket is connected."""


class Brief(threading.local):
    """Connects that nearly always end at once, on threads that must not wait: one that takes longer is interrupted.

    Args:
        library: what `load` returned.
        signal: interrupts; its handler does nothing.
    """

    def __init__(self, library: ctypes.CDLL, signal: int) -> None:
        self._library, self._signal, self._thread = library, signal, None

    def allow(self) -> None:
        """Let this thread make them, if there is room."""
        self._thread = self._library.brief_new(self._signal)

    def connect(self, descriptor: int, address: bytes) -> "Attempt":
        """Connect a socket to a raw sockaddr, if that does not take long.

        Raises:
            OSError: what connect(2) ended with.
        """
        if not self._thread or self._library.brief_is_connecting(descriptor):
            return Attempt.NONE
        code = -self._library.brief_connect(self._thread, descriptor, address, len(address))
        if code not in (0, errno.EINTR):
            raise OSError(code, os.strerror(code), "connect")
        return Attempt.BEGUN if code else Attempt.DONE


class SharedLogState(Structure):
    """The state of an audit log (`audit.log.LogState`) in memory that the receiver shares."""

    # mutex is a pthread_mutex_t: 40 bytes on x86_64, 48 on aarch64.
    _fields_ = (
        ("count", c_uint64),
        ("size", c_uint64),
        ("allowed", c_uint64),
        ("file", c_int32),
        ("closed", c_int32),
        ("hex", c_char * 64),
        ("mutex", c_char * 64),
    )

    def __init__(self, library: ctypes.PyDLL) -> None:
        super().__init__()
        # Python's threads first agree among themselves: one that held the interpreter while it waited for the
        # mutex of another that waits for the interpreter would wait for ever. The receiver needs no interpreter.
        self._turn, self._library, self._self = threading.Lock(), library, ctypes.byref(self)
        if code := library.log_init(self._self, -1, FIRST_PREV.encode()):
            raise OSError(-code, os.strerror(-code))

    @property
    def head(self) -> str:
        """Hash of the last record, in hex."""
        digest: bytes = self.hex
        return digest.decode()

    @head.setter
    def head(self, digest: str) -> None:
        self.hex = digest.encode()

    def __enter__(self) -> None:
        self._turn.acquire()
        self._library.log_lock(self._self)

    def __exit__(self, *_: object) -> None:
        self._library.log_unlock(self._self)
        self._turn.release()


class Entries:
    """Whoever enters it makes directories and moves entries alone: nobody else does, the receiver neither (entries.c).

    Nothing may be taught or forgotten meanwhile, which waits for the calls that the receiver serves.
    """

    def __init__(self, library: ctypes.CDLL, receiver: int) -> None:
        self._library, self._receiver = library, receiver

    def share(self, descriptor: int) -> None:
        """Keep those of other runs out, too, by a lock on a file that this supervisor has opened for itself."""
        self._library.receiver_share_entries(self._receiver, descriptor)

    def __enter__(self) -> None:
        self._library.receiver_lock_entries(self._receiver)

    def __exit__(self, *_: object) -> None:
        self._library.receiver_unlock_entries(self._receiver)


class Receiver:
    """Takes notifications from a listener and serves those that only repeat what was decided.

    Args:
        library: what `load` returned.
        listener: the seccomp listener's descriptor.
        state: the log's state.
        arch: the agent's architecture.
        steer: the kernel wakes callers on our processor (`Listener.sync_wake_up`).

    Attributes:
        entries: entered by the broker while it changes entries of directories.
    """

    def __init__(self, library: ctypes.CDLL, listener: int, state: SharedLogState, arch: Arch, *, steer: bool) -> None:
        self._library = library
        every = syscalls.numbers(arch)
        self._numbers = {name: every[name] for name in _REPEATED if name in every}
        self._receiver = library.receiver_new(
            listener,
            ctypes.byref(state),
            arch.audit_arch,
            ctypes.byref(_Numbers(*(self._numbers.get(name, -1) for name in _REPEATED))),
            steer,
        )
        if not self._receiver:
            raise MemoryError("no room for the receiver")
        self.entries = Entries(library, self._receiver)
        self._known: set[tuple[str, int, bytes, int, int | None]] = set()
        self._epoch = 0
        self._begun = (_Begun * _MOST_BEGUN)()

    def brief(self, signal: int) -> Brief:
        """Return what connects without waiting, see `Brief`."""
        return Brief(self._library, signal)

    def sources(self) -> list[Iterator[Unserved | None]]:
        """Return where the broker takes calls from, each on a thread of its own.

        The first one serves; the others, one for each further processor, help while more calls are waiting. Each yields
        the syscalls that the broker must look at, None for one whose caller was killed before it could be read, and
        raises OSError when the listener is gone.
        """
        helpers = sorted(os.sched_getaffinity(0))[1 : 1 + _MOST_HELPERS]
        serve = partial(self._library.receiver_next, self._receiver)
        help_ = partial(self._library.receiver_help, self._receiver)
        return [_calls(serve), *(_calls(partial(help_, processor)) for processor in helpers)]

    def learn(self, syscall: str, status: os.stat_result, path: str, record: Template, epoch: int = 0) -> None:
        """Let the receiver repeat an open for reading, or a look.

        Args:
            syscall: that it was asked through; of a few only it is repeated.
            status: of the object: a file, a directory or, for a look that follows no link, a symbolic link.
            path: canonical path that was judged.
            record: what every record of this decision has in common.
            epoch: of the rules it was made under; one that is over is not taken.
        """
        kind, object_ = stat.S_IFMT(status.st_mode), (status.st_dev, status.st_ino)
        self._learn(syscall, kind, os.fsencode(path), record, epoch, object_)

    def learn_beneath(
        self, syscall: str, kind: int, directory: str, device: int, record: Template, epoch: int = 0, manner: int = 0
    ) -> None:
        """Let the receiver decide the same about all that lies beneath a directory, whatever it is named.

        Args:
            syscall: as for `learn`.
            kind: file type bits of what it is about, or `MISSING` for what is not there or need not be.
            directory: canonical path; not the root.
            device: `st_dev` of what it is about.
            record: as for `learn`, but `before_tid` ends where the path begins.
            epoch: as for `learn`.
            manner: what it changes, as decisions.h has it; by default nothing.
        """
        self._learn(syscall, kind, os.fsencode(directory), record, epoch, (device, 0), manner)

    def learn_to_go_on(self, syscall: str, arguments: tuple[int, int, int], record: Template, epoch: int = 0) -> None:
        """Let the receiver leave a call to the kernel that has these arguments, as C `int`; none may be a pointer."""
        self._learn(syscall, _GOES_ON, b"%d %d %d" % arguments, record, epoch)

    def learn_to_connect(self, address: bytes, domain: int, record: Template, epoch: int = 0) -> None:
        """Let the receiver connect TCP sockets of a family to a sockaddr that is not slow to answer."""
        self._learn("connect", domain, address, record, epoch)

    def _learn(
        self,
        syscall: str,
        kind: int,
        name: bytes,
        record: Template,
        epoch: int,
        object_: tuple[int, int] = (0, 0),
        manner: int | None = None,
    ) -> None:
        """Teach about a name, or, in a manner, about all beneath it."""
        number, beneath = self._numbers.get(syscall), manner is not None
        what = (syscall, kind, name, object_[0], manner) if beneath else (syscall, -1, name, -1, manner)
        if number is None or what in self._known:
            return
        if len(self._known) >= _MOST_KNOWN:  # the receiver starts anew as well
            self._known.clear()
        self._known.add(what)
        texts = [_Text(text, len(text)) for text in (name, *record)]
        decided = _Decided(number, kind, manner or 0, beneath, *object_, *texts)
        self._library.receiver_learn(self._receiver, ctypes.byref(decided), epoch)

    def forget(self, epoch: int | None = None) -> None:
        """Forget every decision; when this returns none of them is being repeated, and only `epoch` is learnt.

        Args:
            epoch: of the rules that hold from here on; by default they stay the same.
        """
        self._epoch = self._epoch if epoch is None else epoch
        self._library.receiver_forget(self._receiver, self._epoch)
        self._known.clear()

    def begun(self) -> list[tuple[int, int, bytes]]:
        """Return cookie, number of the record and sockaddr of each TCP connection begun here since the last time."""
        count = self._library.receiver_begun(self._receiver, self._begun)
        return [(each.cookie, each.sequence, each.address.raw()) for each in self._begun[:count]]

    def counts(self) -> Counts:
        """Return what became of the calls that arrived here."""
        self._library.receiver_counts(self._receiver, ctypes.byref(counts := _Counts()))
        return Counts(counts.received, counts.continued, counts.recorded, counts.unjudged)

    def settle(self) -> None:
        """Wait until no open is being served."""
        self._library.receiver_settle(self._receiver)


def _calls(take: Callable[[ctypes.Array[c_char], Any], int]) -> Iterator[Unserved | None]:
    room, refusal = ctypes.create_string_buffer(structs.SECCOMP_NOTIF.size), _Refusal()
    while True:
        result = take(room, ctypes.byref(refusal))
        if result < 0:
            if result not in _MISSED:
                raise OSError(-result, os.strerror(-result))
            yield None
            continue
        fields = structs.SECCOMP_NOTIF.unpack_from(room)
        notification = Notification(fields[0], fields[1], fields[3], fields[4], fields[6:])
        yield refusal.of(notification) if result else Unserved(notification)


class _Stop(Structure):
    _fields_ = (("pid", c_int32), ("status", c_int32))


class TracedReceiver(Receiver):
    """Takes calls from a tracer, whose stops come from here then, and serves those that only repeat what was decided.

    Args:
        library: what `load` returned.
        tracer: that takes over what is left.
        state: the log's state.
        arch: the agent's architecture.
    """

    def __init__(self, library: ctypes.CDLL, tracer: "Tracer", state: SharedLogState, arch: Arch) -> None:
        super().__init__(library, -1, state, arch, steer=True)
        channel = tracer.channel
        self._stops = library.tracer_new(channel.ours.fileno(), channel.theirs.fileno(), channel.key, PLACE)
        if not self._stops:
            raise MemoryError("no room for the tracer")
        library.receiver_trace(self._receiver, self._stops)
        self._tracer, self._stop = tracer, _Stop()
        self._stop_at = ctypes.byref(self._stop)
        tracer.stops = self

    def sources(self) -> list[Iterator[Unserved | None]]:
        """Return where the broker takes calls from: one place, for the thread that traces."""
        return [self._traced()]

    def _traced(self) -> Iterator[Unserved | None]:
        room, refusal = ctypes.create_string_buffer(structs.SECCOMP_NOTIF.size), _Refusal()
        while True:
            result = self._library.receiver_next_traced(self._receiver, room, ctypes.byref(refusal), self._stop_at)
            if result < 0:
                raise OSError(-result, os.strerror(-result))  # there is nobody to trace
            notification: Notification | None
            if result == _ANOTHER_STOP:
                notification = self._tracer.accept(self._stop.pid, self._stop.status)
                yield Unserved(notification) if notification else None
                continue
            fields = structs.SECCOMP_NOTIF.unpack_from(room)
            call = fields[1], fields[3], fields[4], fields[6:]
            if result:
                yield Unserved(self._tracer.announce(*call), refusal.sequence, refusal.error)
                continue
            notification = self._tracer.standing(*call)
            yield Unserved(notification) if notification else None

    def next(self) -> tuple[int, int]:
        """Wait for any tracee and return its id and wait status."""
        if result := self._library.tracer_next(self._stops, self._stop_at):
            raise OSError(-result, os.strerror(-result))
        return self._stop.pid, self._stop.status

    def until(self, tid: int) -> int:
        """Wait for one tracee that runs, keep what the others report, and return its wait status."""
        status: int = self._library.tracer_until(self._stops, tid)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        return status


class Library:
    """The compiled functions: those that wait give up the interpreter, the log's lock does not."""

    def __init__(self, path: str) -> None:
        waiting, quick = ctypes.CDLL(path), ctypes.PyDLL(path)
        waiting.receiver_new.restype = c_void_p
        waiting.receiver_new.argtypes = (c_int, c_void_p, c_uint32, c_void_p, c_int)
        waiting.receiver_next.argtypes = (c_void_p, c_void_p, c_void_p)
        waiting.receiver_help.argtypes = (c_void_p, c_int, c_void_p, c_void_p)
        waiting.receiver_learn.argtypes = (c_void_p, c_void_p, c_uint64)
        waiting.receiver_forget.argtypes = (c_void_p, c_uint64)
        waiting.receiver_settle.argtypes = (c_void_p,)
        waiting.receiver_share_entries.argtypes = (c_void_p, c_int)
        waiting.receiver_lock_entries.argtypes = waiting.receiver_unlock_entries.argtypes = (c_void_p,)
        waiting.receiver_counts.argtypes = (c_void_p, c_void_p)
        waiting.receiver_begun.argtypes = (c_void_p, c_void_p)
        waiting.receiver_begun.restype = c_uint32
        waiting.receiver_trace.argtypes = (c_void_p, c_void_p)
        waiting.receiver_next_traced.argtypes = (c_void_p, c_void_p, c_void_p, c_void_p)
        waiting.brief_new.restype = c_void_p
        waiting.brief_new.argtypes = (c_int,)
        waiting.brief_is_connecting.argtypes = (c_int,)
        waiting.brief_connect.argtypes = (c_void_p, c_int, c_char_p, c_uint32)
        waiting.tracer_new.restype = c_void_p
        waiting.tracer_new.argtypes = (c_int, c_int, c_uint64, c_uint64)
        waiting.tracer_next.argtypes = (c_void_p, c_void_p)
        waiting.tracer_until.argtypes = (c_void_p, c_int)
        quick.log_init.argtypes = (c_void_p, c_int, c_char_p)
        quick.log_lock.argtypes = quick.log_unlock.argtypes = (c_void_p,)
        self._waiting, self._quick = waiting, quick

    def log_state(self) -> SharedLogState | None:
        """Return the state of a log that has no record yet; None where libcrypto is missing."""
        try:
            return SharedLogState(self._quick)
        except OSError:
            return None

    def receiver(self, source: "Listener | Tracer", state: SharedLogState, arch: Arch) -> Receiver:
        """Return a receiver that writes to the log with this state."""
        if not isinstance(source, Listener):
            return TracedReceiver(self._waiting, source, state, arch)
        return Receiver(self._waiting, source.descriptor, state, arch, steer=source.sync_wake_up)


def load() -> Library | None:
    """Return the library, None where it was not built, is switched off or lacks what it needs."""
    if os.environ.get("HELM_SENTRY_NATIVE") == "off":
        return None
    try:
        return Library(_PATH)
    except (OSError, AttributeError):  # not there, or built from other sources
        return None
