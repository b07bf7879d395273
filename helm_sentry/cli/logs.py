"""`helm-sentry logs`."""

import os
import sys
import time

import click

from helm_sentry import state
from helm_sentry.control.client import Unreachable, supervisor_of
from helm_sentry.errors import UsageError

_LOOK_EVERY = 0.2  # seconds between looks at output that grows


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on while the run does.")
def logs(run: str, follow: bool) -> None:
    """Print what the agent of RUN printed, if it was started with `run --detach`.

    What it did, and what was decided, is shown by `helm-sentry audit`.
    """
    run = run if state.is_run_id(run) else os.path.basename(state.run_directory(run))
    try:
        file = open(os.path.join(state.output_directory(), run), "rb")  # noqa: SIM115  # also of one that did not begin
    except FileNotFoundError:
        state.run_directory(run)
        raise UsageError(
            f"the output of run `{run}` went to the one who started it; `helm-sentry audit tail -f` shows what it does"
        ) from None
    with file:
        while True:
            last = not (follow and _goes_on(run))
            while chunk := file.read(1 << 16):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            if last:
                return
            time.sleep(_LOOK_EVERY)


def _goes_on(run: str) -> bool:
    try:
        return supervisor_of(state.control_directory(), run) > 0
    except Unreachable:
        return False
