"""A timer that interrupts the thread that made it: timer_create(2) with SIGEV_THREAD_ID."""

import threading
import time

from helm_sentry.abi import libc, structs

_SIGEV_THREAD_ID = 4  # <asm-generic/siginfo.h>
_NANOSECONDS = 1_000_000_000
_OFF = structs.TIMESPEC_PAIR.pack(0, 0, 0, 0)


class ThreadTimer:
    """Sends a signal to the thread that makes it, again and again while the timer is on.

    One signal might come a moment before the system call that it is to interrupt.

    Args:
        signal: sent to this very thread.
        period: seconds until the first one, and between two of them.

    Raises:
        OSError: EAGAIN, the user has as many pending signals as RLIMIT_SIGPENDING lets them have.
    """

    def __init__(self, signal: int, period: float) -> None:
        wanted = structs.SIGEVENT.pack(0, signal, _SIGEV_THREAD_ID, threading.get_native_id())
        self._timer = libc.timer_create(time.CLOCK_MONOTONIC, wanted)
        seconds, rest = divmod(int(period * _NANOSECONDS), _NANOSECONDS)
        self._on = structs.TIMESPEC_PAIR.pack(seconds, rest, seconds, rest)

    def __enter__(self) -> None:
        libc.timer_settime(self._timer, self._on)

    def __exit__(self, *_: object) -> None:
        # A signal that was sent meanwhile is handled before this returns, so none comes later.
        libc.timer_settime(self._timer, _OFF)
