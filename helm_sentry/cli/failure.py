"""What is said of an error, and the exit status it becomes."""

import click

from helm_sentry.errors import SentryError, printable


def report(error: SentryError) -> int:
    """Write one of the project's own errors to standard error as one sentence, and return its exit status."""
    # The text may quote a hostile log or file: nothing in it may steer the terminal.
    click.echo(f"helm-sentry: {printable(str(error))}", err=True)
    return error.exit_status
