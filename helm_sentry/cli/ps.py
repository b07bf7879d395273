"""`helm-sentry ps`."""

import json

import click

from helm_sentry import state
from helm_sentry.control.client import Unreachable, ask, live_runs


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def ps(as_json: bool) -> None:
    """Show the runs that go on, and what they are under."""
    directory = state.control_directory()
    for run in live_runs(directory):
        try:
            (about,) = ask(directory, run, {"do": "about"})
        except Unreachable:
            continue  # it has just ended, or was killed
        if as_json:
            click.echo(json.dumps(about))
        else:
            frozen = ", frozen" if about["frozen"] else ""
            click.echo(f"{run}  policy {about['name']}, epoch {about['epoch']}{frozen}, {about['waiting']} waiting")
