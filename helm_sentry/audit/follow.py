"""Following the log of a run record by record, while it is written."""

import time
from collections.abc import Callable, Iterator

from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.audit.segments import Follower

_LOOK_EVERY = 0.02  # seconds between looks at a log that grows


def records(
    directory: str, *, from_start: bool, goes_on: Callable[[], bool], look_every: float = _LOOK_EVERY
) -> Iterator[tuple[bytes, Fields]]:
    """Return the lines of a log, each with what it says, up to the end record.

    Args:
        directory: the run directory.
        from_start: also what was written before.
        goes_on: asked whenever there is nothing more; what is there is returned before it counts.
        look_every: seconds between looks.
    """
    log, rest, skip = Follower(directory), b"", not from_start
    try:
        while True:
            last = not goes_on()
            chunk = log.read()
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                fields = loads(text, canonical=True)
                if isinstance(fields, dict):
                    if not skip or fields.get("type") == "end":
                        yield text, fields
                    if fields.get("type") == "end":
                        return
            if not chunk:
                skip = False
                if last:
                    return
                time.sleep(look_every)
    finally:
        log.close()
