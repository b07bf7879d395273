"""`helm-sentry kill`."""

import click

from helm_sentry import state
from helm_sentry.control.client import ask


@click.command()
@click.argument("run")
def kill(run: str) -> None:
    """End the agent of RUN, and every process it started."""
    for _ in ask(state.control_directory(), run, {"do": "kill"}):
        click.echo(f"{run} was ended")
