"""What has become of a run's calls, for whoever holds it against another count."""

import threading


class Tally:
    """Counts that several threads keep.

    Attributes:
        records: calls that have a record in the log.
        without: calls that were answered without one, because they asked for nothing that a policy decides.
        execs: programs whose verification is in the log.
    """

    def __init__(self) -> None:
        self.records, self.without, self.execs = 0, 0, 0
        self._lock = threading.Lock()

    def recorded(self) -> None:
        """Count a call whose first record has been written."""
        with self._lock:
            self.records += 1

    def unjudged(self) -> None:
        """Count a call that ends without a record."""
        with self._lock:
            self.without += 1

    def executed(self) -> None:
        """Count a verified program."""
        with self._lock:
            self.execs += 1
