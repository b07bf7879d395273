"""`helm-sentry kill`."""

import click

from helm_sentry.cli.to import to
from helm_sentry.control.client import Runs


@click.command()
@to
@click.argument("run")
def kill(runs: Runs, run: str) -> None:
    """End the agent of RUN, and every process it started."""
    runs.ask(run, {"do": "kill"})
    click.echo(f"{run} was ended")
