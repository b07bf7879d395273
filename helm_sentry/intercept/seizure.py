"""Seizing a caller that waits at the listener: a `Watch` for the seccomp tier.

The thread that seizes must be the one that waits, so all of this happens on one worker. An attached thread whose
tracer dies is killed (EXITKILL): a supervisor that dies in the middle leaves nothing unverified.
"""

import errno
import os
from contextlib import suppress

from helm_sentry.abi import flags, libc
from helm_sentry.intercept.interceptor import Interceptor, Notification, Watched

_MINE = flags.WALL | flags.WNOTHREAD


class Seizure:
    """A seized caller. Its stop tells a failed exec from one that takes long.

    Raises:
        ProcessLookupError: the caller died, or its thread id is somebody else's by now.
        PermissionError: the kernel keeps the caller from us.
    """

    def __init__(self, listener: Interceptor, notification: Notification) -> None:
        self._listener, self._id, self._tid = listener, notification.id, notification.tid
        self._stopped = (self._tid, 0)
        libc.ptrace(flags.PTRACE_SEIZE, self._tid, flags.PTRACE_O_TRACEEXEC | flags.PTRACE_O_EXITKILL)
        # Between notification and seizure the id may have become another thread's, which then must not be touched.
        if not listener.alive(self._id):
            self.abandon()
            raise ProcessLookupError(errno.ESRCH, "the caller is gone")

    def proceed(self) -> None:
        """Let the call go on; the thread stops when it has returned.

        The stop is asked for before the thread can go on and reach its next call, and as late as can be: where a
        waiting caller can be interrupted (before Linux 5.19) it may leave the call for the stop and make it anew.
        """
        libc.ptrace(flags.PTRACE_INTERRUPT, self._tid)
        self._listener.send_continue(self._id)

    def abandon(self) -> None:
        """Answer with an error, wait for the stop, detach."""
        with suppress(ProcessLookupError):
            libc.ptrace(flags.PTRACE_INTERRUPT, self._tid)
        self._listener.send_errno(self._id, errno.EPERM)
        if self.wait():
            self.release()

    def wait(self) -> Watched | None:
        """Wait for a tracee of this thread, whichever: one that execs takes its leader's id."""
        while True:
            try:
                pid, status = os.waitpid(-1, _MINE)
            except ChildProcessError:  # another thread of its process has executed a program
                return None
            if os.WIFSTOPPED(status):
                self._stopped = (pid, status)
                # Any other stop than that of an exec comes after the call has returned.
                return Watched(pid, executed=status >> 16 == flags.PTRACE_EVENT_EXEC)
            if pid == self._tid:
                return None

    def release(self) -> None:
        """Detach, or collect it if it has been killed: its parent hears only then.

        A signal that was about to be delivered is delivered.
        """
        pid, status = self._stopped
        try:
            libc.ptrace(flags.PTRACE_DETACH, pid, 0 if status >> 16 else os.WSTOPSIG(status))
        except ProcessLookupError:
            self.reap()

    def reap(self) -> None:
        """Collect a tracee that dies."""
        with suppress(ChildProcessError):
            while os.WIFSTOPPED(os.waitpid(self._stopped[0], _MINE)[1]):
                pass
