"""`helm-sentry standby`."""

import os
import sys
from typing import NoReturn

import click


@click.command()
def standby() -> None:
    """Keep a warm process, from which runs are forked at once.

    `helm-sentry run` uses it where an ordinary start would be the same: with no terminal on its input or output, by
    the same user, with the same limits, groups, capabilities and namespaces, and while the program is as it was loaded.
    SIGTERM ends it, and no run.
    """
    # Imported here: the other commands start without it.
    from helm_sentry.standby.server import Standby
    from helm_sentry.standby.warm import load_ahead, warm_up

    warm_up()
    Standby(_run, load_ahead).serve()


def _run(argv: list[str], connection: int) -> NoReturn:
    """Be `helm-sentry` with these words, for the caller at the other end of a connection."""
    # Imported here, too; by now it has been loaded.
    from helm_sentry import state
    from helm_sentry.cli.main import main
    from helm_sentry.launch.caller import tell
    from helm_sentry.options import Hosted

    sys.argv = argv
    status = 0
    try:
        main(argv[1:], obj=Hosted(run=state.new_run_id(), environment=dict(os.environ), connection=connection))
    except BaseException as error:  # this is where the interpreter would end otherwise
        status = _status(error)
    sys.stdout.flush()
    sys.stderr.flush()
    tell(connection, exit=status)
    os._exit(0)


def _status(error: BaseException) -> int:
    """Return the exit status of an interpreter that ends with an exception, after it has said what is to be said."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    sys.excepthook(type(error), error, error.__traceback__)
    return 1
