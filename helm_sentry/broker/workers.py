"""Threads for work that may wait: a connect nobody answers, a FIFO nobody opens, an exec that is being verified.

The receiver never waits, so one agent thread's syscall never delays another's. A waiting worker is interrupted when
its caller dies or has a signal to handle, as the kernel would interrupt the real call.
"""

import errno
import queue
import signal
import threading
from collections.abc import Callable

from helm_sentry.abi.flags import ERESTARTSYS
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone
from helm_sentry.confine.credentials import Identity, assume_in_thread
from helm_sentry.intercept.process_tree import status_field

INTERRUPT = signal.SIGRTMIN + 1
"""Sent to a worker thread to make its system call return EINTR."""
_LOOK_EVERY = 0.01  # seconds between looks at the callers of waiting workers
_MOST_WORKERS = 512


class Workers:
    """A pool that grows when every thread is busy; each thread acts with the agent's identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._waiting: dict[int, Call] = {}
        self._watcher_wakes = threading.Event()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def submit(self, task: Callable[[], None]) -> bool:
        """Run `task` on some thread soon; False when too many wait already. `task` must not raise."""
        with self._lock:
            if self._idle <= 0:
                if len(self._threads) >= _MOST_WORKERS:
                    return False
                thread = threading.Thread(target=self._work, name="worker", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._idle -= 1
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
        self._waiting[thread] = call
        self._watcher_wakes.set()
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
            del self._waiting[thread]

    def _work(self) -> None:
        assume_in_thread(self._identity)
        while (task := self._tasks.get()) is not None:
            task()
            with self._lock:
                self._idle += 1

    def _watch(self) -> None:
        """Interrupt each waiting worker whose caller is gone or has a signal; again at each look until it ends."""
        while True:
            self._watcher_wakes.wait()
            self._watcher_wakes.clear()
            while self._waiting:
                for thread, call in list(self._waiting.items()):
                    if not call.broker.listener.alive(call.id) or interruption(call.tid):
                        signal.pthread_kill(thread, INTERRUPT)
                threading.Event().wait(_LOOK_EVERY)


def interruption(tid: int) -> int:
    """Return the errno that a blocking call of this thread ends with now, 0 when it may go on waiting.

    A call that waits for the supervisor hears only fatal signals (WAIT_KILLABLE_RECV), so the supervisor looks for
    the others. ERESTARTSYS lets the kernel honour SA_RESTART, but is only understood by a thread that was itself
    told of the signal; where another thread of the process may have been, EINTR is the safe answer.
    """
    try:
        pending = int(status_field(tid, "SigPnd"), 16)
        shared = int(status_field(tid, "ShdPnd"), 16)
        if not pending | shared:
            return 0
        unwanted = int(status_field(tid, "SigBlk"), 16) | int(status_field(tid, "SigIgn"), 16)
        if pending & ~unwanted:
            return ERESTARTSYS
        if shared & ~unwanted:
            return ERESTARTSYS if status_field(tid, "Threads") == "1" else errno.EINTR
    except ProcessLookupError:
        return errno.EINTR
    return 0
