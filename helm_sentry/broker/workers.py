"""Threads for work that may wait: a connect nobody answers, a FIFO nobody opens, an exec that is being verified.

The receiver never waits, so one agent thread's syscall never delays another's. A waiting worker is interrupted when
its caller dies or has a signal to handle, as the kernel would interrupt the real call.
"""

import errno
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable

from helm_sentry.abi.flags import ERESTARTSYS
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone
from helm_sentry.confine.credentials import Identity, assume_in_thread
from helm_sentry.intercept.process_tree import status_field

INTERRUPT = signal.SIGRTMIN + 1
"""Sent to a thread of ours to make its system call return EINTR."""
_LOOK_EVERY = 0.01  # seconds between looks at the callers of waiting workers
_LOOK_COST = 0.0002  # seconds more for each of them, so that many who wait do not slow down those who do not
_MOST_WORKERS = 512
_FAILED = 125


class Workers:
    """A pool that grows when every thread is busy; each thread acts with the agent's identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._idle, self._count = 0, 0
        self._waiting: dict[int, Call] = {}
        self._watcher_wakes = threading.Event()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def submit(self, task: Callable[[], None]) -> bool:
        """Run `task` on some thread soon; False when no thread can be had. `task` must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._count < _MOST_WORKERS and self._grow():
                self._count += 1
            else:
                return False
        self._tasks.put(task)
        return True

    def wait(self, call: Call, blocking: Callable[[], int]) -> int:
        """Make a system call that may block until the agent or the world acts.

        Args:
            call: the agent's call this is done for.
            blocking: the system call; raises InterruptedError on EINTR.

        Raises:
            Gone: the caller died.
            OSError: what the system call raised, or EINTR or ERESTARTSYS when the caller has a signal to handle.
        """
        thread = threading.get_ident()
        with self._lock:
            self._waiting[thread] = call
        self._watcher_wakes.set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {INTERRUPT})
        try:
            while True:
                try:
                    return blocking()
                except InterruptedError:
                    if not call.broker.listener.alive(call.id):
                        raise Gone from None
                    if code := interruption(call.tid):
                        raise OSError(code, "interrupted by a signal") from None
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {INTERRUPT})
            with self._lock:
                del self._waiting[thread]

    def drain(self, seconds: float) -> bool:
        """Wait until no work is left, as when every caller has died; False when some takes longer than that."""
        with self._lock:
            return self._lock.wait_for(lambda: self._idle == self._count, seconds)

    def _grow(self) -> bool:
        """Start a thread; False when the system has no room, which a forking agent of the same user can bring about."""
        try:
            threading.Thread(target=self._work, name="worker", daemon=True).start()
        except RuntimeError:
            return False
        return True

    def _work(self) -> None:
        try:
            # Outside of `wait` a late interrupt would hit the answer: a descriptor is handed over by a call that
            # cannot be repeated.
            signal.pthread_sigmask(signal.SIG_BLOCK, {INTERRUPT})
            assume_in_thread(self._identity)
            while True:
                self._tasks.get()()
                with self._lock:
                    self._idle += 1
                    self._lock.notify_all()
        except BaseException:
            # A caller is left without an answer, or this thread without its identity: the guardian ends the run.
            traceback.print_exc()
            os._exit(_FAILED)

    def _watch(self) -> None:
        """Interrupt each waiting worker whose caller is gone or has a signal; again at each look until it ends."""
        pause = threading.Event()
        while True:
            self._watcher_wakes.wait()
            self._watcher_wakes.clear()
            while waiting := self._snapshot():
                for thread, call in waiting:
                    if not call.broker.listener.alive(call.id) or interruption(call.tid):
                        signal.pthread_kill(thread, INTERRUPT)
                pause.wait(_LOOK_EVERY + _LOOK_COST * len(waiting))

    def _snapshot(self) -> list[tuple[int, Call]]:
        with self._lock:
            return list(self._waiting.items())


def interruption(tid: int, besides: int = 0) -> int:
    """Return the errno that a blocking call of this thread ends with now, 0 when it may go on waiting.

    A call that waits for the supervisor hears only fatal signals (WAIT_KILLABLE_RECV), so the supervisor looks for
    the others. ERESTARTSYS lets the kernel honour SA_RESTART, but is only understood by a thread that was itself
    told of the signal; where another thread of the process may have been, EINTR is the safe answer.

    Args:
        tid: the thread.
        besides: mask of signals that do not count.
    """
    try:
        pending = int(status_field(tid, "SigPnd"), 16)
        shared = int(status_field(tid, "ShdPnd"), 16)
        if not pending | shared:
            return 0
        unwanted = besides | int(status_field(tid, "SigBlk"), 16) | int(status_field(tid, "SigIgn"), 16)
        if pending & ~unwanted:
            return ERESTARTSYS
        if shared & ~unwanted:
            return ERESTARTSYS if status_field(tid, "Threads") == "1" else errno.EINTR
    except (ProcessLookupError, ValueError):
        return errno.EINTR
    return 0
