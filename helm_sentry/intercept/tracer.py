"""Interception by ptrace(2), where no seccomp listener can be had.

The filter's verdict is SECCOMP_RET_TRACE: a mediated call stops its thread before the kernel begins it. One thread of
the supervisor, the one that receives, traces every thread of the agent: only a tracer may change or resume what it
traces. Whoever else has an answer leaves it here and rings the bell.

A thread that stands at its call is out of reach for everybody but SIGKILL, and its id stays its own until this thread
has collected it, with one exception: a thread that executes a program takes its leader's id, and is asked about then.
"""

import errno
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Protocol

from helm_sentry.abi import flags, libc, structs, syscalls
from helm_sentry.abi.arch import Arch
from helm_sentry.errors import SentryError
from helm_sentry.intercept.injection import TRIED, Channel, Injector
from helm_sentry.intercept.interceptor import Notification, Watched
from helm_sentry.intercept.process_tree import stat_fields
from helm_sentry.intercept.stops import Stop, What, classify

_MINE = flags.WALL | flags.WNOTHREAD
_OPTIONS = (
    flags.PTRACE_O_EXITKILL
    | flags.PTRACE_O_TRACESYSGOOD
    | flags.PTRACE_O_TRACESECCOMP
    | flags.PTRACE_O_TRACEEXEC
    | flags.PTRACE_O_TRACEFORK
    | flags.PTRACE_O_TRACEVFORK
    | flags.PTRACE_O_TRACECLONE
)
RING = signal.SIGUSR1
"""Sent to the bell."""
_INFO = structs.PTRACE_SYSCALL_INFO
_PEEK = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | flags.WALL
_ALL_ONES = 0xFFFF_FFFF
_PATIENCE = 5.0  # seconds for a tracer that may have failed


class StopSource(Protocol):
    """Where stops come from; belongs to the tracer's thread."""

    def next(self) -> tuple[int, int]:
        """Wait for any tracee and return its id and wait status."""

    def until(self, tid: int) -> int:
        """Wait for one tracee that runs, keep what the others report, and return its wait status."""


class Stops:
    """The stops of this thread's tracees, in rounds: who makes many calls does not come before those who make few."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, int]] = deque()

    def next(self) -> tuple[int, int]:
        """Wait for any tracee and return its id and wait status.

        Raises:
            ChildProcessError: there is none.
        """
        if self._kept:
            return self._kept.popleft()
        first = os.waitpid(-1, _MINE)
        with suppress(ChildProcessError):
            while (more := os.waitpid(-1, _MINE | os.WNOHANG))[0]:
                self._kept.append(more)
        return first

    def until(self, tid: int) -> int:
        """Wait for one tracee that runs, keep what the others report, and return its wait status.

        It is not waited for alone: a leader's end is not reported before its other threads are collected.
        """
        while True:
            pid, status = os.waitpid(-1, _MINE)
            if pid != tid:
                self._kept.append((pid, status))
                continue
            if classify(status).what is not What.RETURNED:
                self._kept.append((pid, status))
            return status


class Tracer:
    """An `Interceptor` that traces.

    Attributes:
        received: calls so far.
        continued: calls that the kernel was told to carry out.
        channel: for handing descriptors over.
        stops: of the tracees; the compiled receiver has its own.

    Args:
        arch: the agent's architecture.
        agent: process with one thread and the filter, that makes no mediated call before `ready` returns.
        bell: process to ring.
        channel: for handing descriptors over.
    """

    def __init__(self, arch: Arch, agent: int, bell: int, channel: Channel) -> None:
        self._arch, self._agent, self._bell, self.channel = arch, agent, bell, channel
        self.stops: StopSource = Stops()
        self._injector = Injector(arch, channel, lambda tid: self.stops.until(tid))
        self._close_range = syscalls.number("close_range", arch)
        table = syscalls.table(arch).items()
        self._of_processors = {number: row for number, row in table if row.name in syscalls.OF_PROCESSORS}
        self.received, self.continued, self._last_id = 0, 0, 0
        self._thread = 0
        self._attached = threading.Event()
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: dict[int, Notification] = {}  # by id
        self._calls: dict[int, int] = {}  # ids by thread
        self._prepared: set[int] = set()
        self._emptied: set[int] = set()
        self._stopped: set[int] = set()
        self._watches: dict[int, _Watch] = {}
        self._info = bytearray(_INFO.size)
        self._info_at = libc.address_of(self._info)

    def attach(self) -> None:
        """Trace bell and agent from this thread on; called once, first, on the thread that will receive."""
        self._thread = threading.get_ident()
        try:
            libc.ptrace(flags.PTRACE_SEIZE, self._bell, flags.PTRACE_O_EXITKILL)
            libc.ptrace(flags.PTRACE_SEIZE, self._agent, _OPTIONS)
        finally:
            self._attached.set()

    def ready(self) -> None:
        """Return when the agent is traced."""
        self._attached.wait()

    def receive(self) -> Notification | None:
        """Wait for the next stop; return the call, if it is one that the broker is to look at."""
        return self.accept(*self.stops.next())

    def accept(self, pid: int, status: int) -> Notification | None:
        """Deal with a stop; return the call, if it is one that the broker is to look at.

        Raises:
            SentryError: nobody can wake this thread any more.
        """
        stop = classify(status)
        if pid == self._bell:
            if stop.what is What.ENDED:
                raise SentryError("the process that wakes the tracer was killed")
            self._answer()
            return None
        self._stopped.discard(pid)
        try:
            if stop.what is What.SECCOMP:
                return self._call(pid)
            self._deal(pid, stop)
        except ProcessLookupError:
            pass  # it has been killed; that it has ended is told as well
        return None

    def alive(self, notification_id: int) -> bool:
        """Whether the caller still stands at its call."""
        notification = self._waiting.get(notification_id)
        if notification is None:
            return False
        if threading.get_ident() == self._thread:
            return self._stands(notification.tid)
        with suppress(OSError, ChildProcessError):
            # Another thread that takes this one's id runs, or has stopped in a way that was not heard of yet.
            at_rest = stat_fields(notification.tid)[0] == b"t"
            unheard = os.waitid(os.P_PID, notification.tid, _PEEK)
            return at_rest and unheard is None and notification_id in self._waiting
        return False

    def send_value(self, notification_id: int, value: int) -> None:
        """End the syscall with a return value."""
        self._on_tracer(lambda: self._end(notification_id, value))

    def send_errno(self, notification_id: int, code: int) -> None:
        """End the syscall with an error; `code` is the positive errno."""
        self._on_tracer(lambda: self._end(notification_id, -code))

    def send_continue(self, notification_id: int) -> None:
        """Let the kernel carry the syscall out; its arguments are registers that nobody can change meanwhile."""
        self._on_tracer(lambda: self._continue(notification_id))

    def inject(
        self, notification: Notification, descriptor: int, close_on_exec: bool, release: Callable[[], None]
    ) -> None:
        """Put a copy of `descriptor` into the caller, `release` ours, and return its number there.

        Raises:
            OSError: the caller's descriptor table is full (EMFILE); the caller still waits.
        """
        if threading.get_ident() == self._thread:
            self._hand_over(notification.id, descriptor, close_on_exec, release)
            return
        done: Future[None] = Future()
        hand_over = partial(self._hand_over, notification.id, descriptor, close_on_exec, release)
        self._on_tracer(lambda: _settle(done, hand_over))
        done.result()

    def watch(self, notification: Notification) -> "_Watch":
        """Return a watch over a caller; whoever made it is told of its next stop."""
        if not self.alive(notification.id):
            raise ProcessLookupError(errno.ESRCH, "the caller is gone")
        return _Watch(self, notification)

    def is_stopped(self, pid: int) -> bool:
        """Whether job control has stopped a process; not to be asked on the tracer's thread.

        Its parent may have heard of it before this thread has. When the bell has been answered twice, every stop that
        there was at first has been dealt with.
        """
        for _ in range(2):
            heard = threading.Event()
            self._on_tracer(heard.set)
            heard.wait(_PATIENCE)
        return pid in self._stopped

    def begin_watch(self, watch: "_Watch") -> None:
        """Continue a call and stop its thread when it has returned, or has become a new program."""

        def proceed() -> None:
            notification = self._take(watch.id)
            if notification is None:
                watch.tell(None)
                return
            self.continued += 1
            self._watches[notification.tid] = watch
            self._resume(notification.tid, flags.PTRACE_SYSCALL)

        self._on_tracer(proceed)

    def end_watch(self, pid: int) -> None:
        """Let a thread run on that was stopped for a watch."""
        self._on_tracer(lambda: self._resume(pid))

    def _on_tracer(self, act: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            act()
            return
        self._answers.put(act)
        with suppress(ProcessLookupError):
            os.kill(self._bell, RING)

    def _answer(self) -> None:
        self._resume(self._bell)  # first: who rings from here on is heard again
        with suppress(queue.Empty):
            while True:
                self._answers.get_nowait()()

    def _call(self, tid: int) -> Notification | None:
        """Return the call a thread stopped at, if it is the broker's."""
        libc.ptrace(flags.PTRACE_GET_SYSCALL_INFO, tid, self._info_at, _INFO.size)
        fields = _INFO.unpack_from(self._info)
        number, arch = fields[4] & _ALL_ONES, fields[1]
        if number & 0x8000_0000:
            number -= 1 << 32
        return self._asked(tid, number, arch, fields[5:11])

    def standing(self, tid: int, number: int, arch: int, args: tuple[int, ...]) -> Notification | None:
        """Deal with a call that a thread was seen to stand at; return it, if the broker is to look at it."""
        self._stopped.discard(tid)
        with suppress(ProcessLookupError):
            return self._asked(tid, number, arch, args)
        return None

    def _asked(self, tid: int, number: int, arch: int, args: tuple[int, ...]) -> Notification | None:
        if arch == self._arch.audit_arch:
            if args[5] == self.channel.key:
                self._injector.skip(tid, TRIED)
                return None
            if number == self._close_range:
                self._close_range_of(tid, *args[:3])
                return None
            if (row := self._of_processors.get(number)) and not row.notified(args):
                self._resume(tid)  # it was stopped so that it comes after what we do with its processors
                return None
            if tid not in self._prepared:
                self._prepared.add(tid)
                if not self._injector.prepare(tid, number):
                    return None
        self.received += 1
        return self.announce(tid, number, arch, args)

    def announce(self, tid: int, number: int, arch: int, args: tuple[int, ...]) -> Notification:
        """Give a call that a thread stands at its id."""
        self._last_id += 1
        notification = Notification(self._last_id, tid, number, arch, args)
        self._waiting[notification.id] = notification
        self._calls[tid] = notification.id
        return notification

    def _deal(self, pid: int, stop: Stop) -> None:
        match stop.what:
            case What.ENDED:
                self._forget(pid)
            case What.EXECUTED:
                self._executed(pid)
            case What.RETURNED:
                self._returned(pid)
            case What.GROUP_STOPPED:
                self._stopped.add(pid)
                libc.ptrace(flags.PTRACE_LISTEN, pid)
            case What.SIGNALLED:
                libc.ptrace(flags.PTRACE_CONT, pid, stop.signal)
            case _:
                libc.ptrace(flags.PTRACE_CONT, pid)

    def _executed(self, pid: int) -> None:
        """Have a new program verified; one that nobody let begin does not run."""
        libc.ptrace(flags.PTRACE_GETEVENTMSG, pid, self._info_at)
        former = int.from_bytes(self._info[:8], "little")
        watch = self._watches.pop(former, None)
        for tid in {former, pid}:
            self._forget(tid)
        if watch:
            watch.tell(Watched(pid, executed=True))
        else:
            os.kill(pid, signal.SIGKILL)

    def _returned(self, tid: int) -> None:
        watch = self._watches.pop(tid, None)
        if watch:
            watch.tell(Watched(tid, executed=False))
        else:
            self._resume(tid)

    def _forget(self, tid: int) -> None:
        """Forget a thread that is no more, or that was another one under this id."""
        self._waiting.pop(self._calls.pop(tid, 0), None)
        self._prepared.discard(tid)
        self._emptied.discard(tid)
        if watch := self._watches.pop(tid, None):
            watch.tell(None)

    def _take(self, notification_id: int) -> Notification | None:
        """Return a call that is about to end; None when there is nobody any more."""
        notification = self._waiting.pop(notification_id, None)
        if notification:
            self._calls.pop(notification.tid, None)
        return notification

    def _stands(self, tid: int) -> bool:
        """Ask the kernel whether a thread stands at its call."""
        try:
            libc.ptrace(flags.PTRACE_GET_SYSCALL_INFO, tid, self._info_at, _INFO.size)
        except ProcessLookupError:
            return False
        return self._info[0] == flags.PTRACE_SYSCALL_INFO_SECCOMP

    def _end(self, notification_id: int, result: int) -> None:
        notification = self._take(notification_id)
        if notification is None:
            return
        with suppress(ProcessLookupError):
            if result == -flags.ERESTARTSYS:
                self._injector.restart(notification.tid, notification.nr, -result)
            else:
                self._injector.skip(notification.tid, result)

    def _continue(self, notification_id: int) -> None:
        notification = self._take(notification_id)
        if notification:
            self.continued += 1
            self._resume(notification.tid)

    def _hand_over(
        self, notification_id: int, descriptor: int, close_on_exec: bool, release: Callable[[], None]
    ) -> None:
        notification = self._waiting.get(notification_id)
        if notification is None:
            return
        with suppress(ProcessLookupError):
            self._injector.hand_over(notification.tid, descriptor, close_on_exec, release)
            self._take(notification_id)

    def _close_range_of(self, tid: int, first: int, last: int, how: int) -> None:
        """Carry out close_range(2) around the channel's number: what lies above it first, then what lies below."""
        first, last, hidden = first & _ALL_ONES, last & _ALL_ONES, self.channel.number
        if last > hidden and tid not in self._emptied and _has_above(tid, hidden):
            self._emptied.add(tid)
            self._injector.run(tid, self._close_range, hidden + 1, last, how)
            self._injector.anew(tid, self._close_range)
            return
        self._emptied.discard(tid)
        rest = (first, hidden - 1) if first < hidden else (hidden + 1, max(last, hidden + 1))
        result = self._injector.run(tid, self._close_range, *rest, how)
        self._injector.finish(tid, result)

    def _resume(self, pid: int, request: int = flags.PTRACE_CONT) -> None:
        with suppress(ProcessLookupError):
            libc.ptrace(request, pid)


class _Watch:
    """A `Watch` over a tracee."""

    def __init__(self, tracer: Tracer, notification: Notification) -> None:
        self.id = notification.id
        self._tracer, self._pid = tracer, notification.tid
        self._stops: queue.SimpleQueue[Watched | None] = queue.SimpleQueue()

    def tell(self, stopped: Watched | None) -> None:
        """Take the next stop; None for the end of the thread."""
        self._stops.put(stopped)

    def proceed(self) -> None:
        """Let the call go on."""
        self._tracer.begin_watch(self)

    def abandon(self) -> None:
        """Answer EPERM instead."""
        self._tracer.send_errno(self.id, errno.EPERM)

    def wait(self) -> Watched | None:
        """Wait until the call has returned or has become a new program; None when the thread has ended."""
        stopped = self._stops.get()
        if stopped:
            self._pid = stopped.pid
        return stopped

    def release(self) -> None:
        """Let the stopped thread run on."""
        self._tracer.end_watch(self._pid)

    def reap(self) -> None:
        """Nothing is left to do: the tracer collects it."""


def _settle(done: Future[None], act: Callable[[], None]) -> None:
    try:
        act()
        done.set_result(None)
    except OSError as error:
        done.set_exception(error)


def _has_above(tid: int, number: int) -> bool:
    try:
        return any(int(name) > number for name in os.listdir(f"/proc/{tid}/fd"))
    except OSError:
        return True
