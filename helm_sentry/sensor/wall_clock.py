"""Notices when somebody sets the wall clock while a run goes on.

Limits, budgets and waits for approval go by a clock that nobody can set; the times of records, and rules that ask what
time it is, go by the wall clock. So a log in which time jumps must say that it was the clock.
"""

import threading
import time
from collections.abc import Callable

_TOLERANCE = 500_000_000  # nanoseconds; slewing, as NTP does it, is at most 0.05 % of the time between two looks


def _since_boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # it goes on while the machine sleeps, as the wall clock does


class WallClock:
    """The wall clock, seen against one that goes on whatever is set.

    Args:
        wall: nanoseconds since the epoch.
        steady: nanoseconds of a clock that cannot be set.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = _since_boot) -> None:
        self._wall, self._steady, self._turn = wall, steady, threading.Lock()
        self._apart = self._wall() - self._steady()

    def jump(self) -> int:
        """Return by how many microseconds the wall clock was set since the last look; 0 when it was not."""
        with self._turn:
            apart = self._wall() - self._steady()
            jumped, self._apart = apart - self._apart, apart
        return jumped // 1000 if abs(jumped) > _TOLERANCE else 0
