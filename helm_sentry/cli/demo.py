"""`helm-sentry demo`: the bundled agent, led astray by a scripted model."""

import json
import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from helm_sentry.demo.scenario import Act


@click.command()
@click.option("--accept-degraded", is_flag=True, help="Run although a layer is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(accept_degraded: bool, as_json: bool) -> None:
    """Watch a supervised agent obey a model with bad ideas.

    A tool-using agent does what a scripted local model asks for: first its task, then an SSH key, /etc/passwd,
    curl, a forbidden address, a daemon. The board shows what came of each act, and the run verifies its own log
    and receipts. Nothing leaves this machine. Exit status 1 means that something was not as expected.
    """
    # Imported here: the other commands start without web servers.
    from helm_sentry.demo import board
    from helm_sentry.demo.performance import perform

    if not as_json:
        click.echo("An agent with no authority of its own, and a model with ideas:\n", err=True)
    outcome = perform(_silent if as_json else _narrate, ("--accept-degraded",) if accept_degraded else ())
    if as_json:
        click.echo(json.dumps(outcome.fields(), indent=2))
    else:
        click.echo(err=True)
        _print(board.rows(outcome.findings))
        click.echo()
        _print(board.closing(outcome, os.path.expanduser("~")))
    if not outcome.good:
        raise SystemExit(1)


def _narrate(act: "Act", met: str) -> None:
    click.echo(f"  model: {act.says:<50} agent: {met}", err=True)


def _silent(act: "Act", met: str) -> None:
    """Say nothing."""


def _print(lines: list[tuple[str, bool]]) -> None:
    for text, good in lines:
        click.echo(text if good else click.style(text, fg="red", bold=True))
