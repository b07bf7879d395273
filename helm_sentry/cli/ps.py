"""`helm-sentry ps`."""

import json

import click

from helm_sentry.cli.to import to
from helm_sentry.control.client import Runs


@click.command()
@to
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def ps(runs: Runs, as_json: bool) -> None:
    """Show the runs that go on, and what they are under."""
    for about in runs.everywhere({"do": "about"}):
        if as_json:
            click.echo(json.dumps(about))
            continue
        role = f", role {about['role']}" if about["role"] else ""
        frozen = ", frozen" if about["frozen"] else ""
        words = f"policy {about['name']}{role}, epoch {about['epoch']}{frozen}, {about['waiting']} waiting"
        click.echo(f"{about['run']}  {words}")
