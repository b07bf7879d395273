"""Two questions: what does an open cost more, beside the least a C supervisor can do, and how long does a start take?

A start is timed in a session without a terminal, as a service or another program starts one: where there is a terminal,
or anything else that a standby has not, a run does not come from it.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness import Figures, Lab, Row, Side, main


def measure(lab: Lab) -> list[Row]:
    floor = Side("bare C supervisor", (str(lab.compile("bare_supervisor")),))
    sentry = lab.supervised()
    with standby(lab, sentry[0].prefix[0]) as state:
        warm = [replace(side, name=f"{side.name}, from a standby", environment=state) for side in sentry]
        starts = lab.alternate("start of `true`", "ms", lambda side: started(lab, side), [*sentry, *warm])
    return [
        *lab.alternate(
            "open+read+close of 1 KiB",
            "us",
            lambda side: lab.looped(side, "read", 5000, lab.data),
            [*sentry, floor, *lab.traced()],
        ),
        *lab.alternate("open alone", "us", lambda side: lab.looped(side, "open", 5000, lab.data), lab.in_the_kernel()),
        *starts,
    ]


def started(lab: Lab, side: Side) -> Figures:
    """Time a program that does nothing, in milliseconds."""
    environment = os.environ | {"XDG_STATE_HOME": str(lab.state)} | dict(side.environment)
    begin = time.perf_counter()
    subprocess.run(
        [*side.prefix, "/bin/true"],
        cwd=lab.workspace,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        start_new_session=True,
    )
    taken = (time.perf_counter() - begin) * 1000
    shutil.rmtree(f"{environment['XDG_STATE_HOME']}/helm-sentry/runs", ignore_errors=True)
    return taken, taken, taken


@contextmanager
def standby(lab: Lab, command: str) -> Iterator[dict[str, str]]:
    """A standby with a state directory of its own; ends the benchmark if a run was not forked from it."""
    state = {"XDG_STATE_HOME": str(lab.state.with_name("state-of-the-standby"))}
    process = subprocess.Popen(
        [command, "standby"], env=os.environ | state, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    said = process.stderr.readline()
    try:
        if "ready" not in said:
            raise SystemExit(said)
        yield state
    finally:
        process.terminate()
        said = process.communicate()[1]
    if said:
        raise SystemExit(said)


if __name__ == "__main__":
    main(measure, __doc__, rounds=9)
