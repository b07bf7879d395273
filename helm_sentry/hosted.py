"""The supervisor of a run that a host starts for a caller: `python -m helm_sentry.hosted DESCRIPTOR`.

The descriptor is a file with what to run, as JSON. How it ended is told to the caller, who repeats it.
"""

import json
import os
import signal
import sys
from typing import Any

from helm_sentry.confine import group
from helm_sentry.errors import SentryError, printable
from helm_sentry.launch.caller import tell
from helm_sentry.options import Hosted, Options
from helm_sentry.session import supervise


def main(descriptor: int) -> int:
    """Supervise the run and return this process's exit status."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the host holds some back
    with open(descriptor, "rb") as file:
        file.seek(0)
        order: Any = json.load(file)
    hosted = order["hosted"]
    hosted = Hosted(**(hosted | {"within": tuple(hosted.get("within", ()))}))
    options = Options(**(order["options"] | {"command": tuple(order["options"]["command"]), "hosted": hosted}))
    if hosted.connection >= 0:
        os.set_inheritable(hosted.connection, False)
    return serve(options, hosted)


def serve(options: Options, hosted: Hosted) -> int:
    """Supervise a run, tell its caller how it ended, and return this process's exit status."""
    try:
        if hosted.cgroup:
            _enter(hosted.cgroup)
        status, _ = supervise(options)
    except SentryError as error:
        print(f"helm-sentry: {printable(str(error))}", file=sys.stderr)
        tell(hosted.connection, exit=error.exit_status)
        return error.exit_status
    tell(hosted.connection, status=status)
    return 0


def _enter(cgroup: str) -> None:
    try:
        group.enter(cgroup)
    except OSError as error:
        raise SentryError(f"the control group `{cgroup}` cannot be entered: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
