"""Entries of directories change one at a time, also where runs share a directory. See native/entries.c."""

import fcntl
import threading


class Entries:
    """Whoever enters it makes directories, moves and removes entries alone."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._shared = -1

    def share(self, descriptor: int) -> None:
        """Keep those of other runs out, too, by a lock on a file that this supervisor has opened for itself."""
        self._shared = descriptor

    def __enter__(self) -> None:
        self._turn.acquire()
        try:
            if self._shared >= 0:
                fcntl.flock(self._shared, fcntl.LOCK_EX)
        except OSError:
            self._turn.release()
            raise

    def __exit__(self, *_: object) -> None:
        if self._shared >= 0:
            fcntl.flock(self._shared, fcntl.LOCK_UN)
        self._turn.release()
