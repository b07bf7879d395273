"""The `helm-sentry` program: a run that a standby can fork is handed over, everything else is the command line's."""

import gc
import os
import sys


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] == ["run"]:
        if (status := _forked()) is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        gc.disable()  # until all is loaded: nothing of it becomes garbage, and to look for some takes 8 ms
    # Imported here, as what is above is there to do without it.
    from helm_sentry.cli.main import main as command_line

    command_line()


def _forked() -> int | None:
    from helm_sentry import state

    if not os.path.exists(state.standby_socket()):
        return None
    from helm_sentry.standby.client import run

    return run()
