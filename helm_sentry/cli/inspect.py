"""`helm-sentry inspect`."""

import json
import os

import click

from helm_sentry import state
from helm_sentry.control.client import Unreachable, ask


@click.command()
@click.argument("run")
def inspect(run: str) -> None:
    """Show what RUN is under: its effective policy now, its plan, and what it has come to.

    For a run that has ended, what it began with.
    """
    directory = state.run_directory(run)
    run = os.path.basename(directory)
    found = {"run": run} | {name: _document(directory, name) for name in ("policy", "plan")}
    try:
        for request in ("about", "policy"):
            (answer,) = ask(state.control_directory(), run, {"do": request})
            found |= answer
        found["state"] = "running"
    except Unreachable:
        from helm_sentry.daemon.runs import condition

        found["state"] = str(condition(run))
    click.echo(json.dumps(found, indent=2))


def _document(directory: str, name: str) -> object:
    with open(os.path.join(directory, f"{name}.json"), "rb") as file:
        return json.load(file)
