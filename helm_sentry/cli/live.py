"""`helm-sentry policy push|grant|revoke|freeze|drop`: the policy of a run that goes on."""

import json
import os
import sys
from typing import Any

import click

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.cli.to import to
from helm_sentry.control.bundle import Bundle
from helm_sentry.control.client import Runs
from helm_sentry.errors import UsageError
from helm_sentry.policy import values
from helm_sentry.policy.loader import load, load_file
from helm_sentry.receipt.keyring import signing_key


@click.command()
@to
@click.argument("run")
@click.argument("file", metavar="FILE|NAME")
@click.option("--dry-run", is_flag=True, help="Only say whether it would be accepted.")
@click.option("--key", default="", metavar="FILE", help="Private key to sign with.")
def push(runs: Runs, run: str, file: str, dry_run: bool, key: str) -> None:
    """Put RUN under another policy.

    The policy is signed, and replaces only the one that holds now: whoever pushes in between wins, and this fails.
    Limits, environment and the programs of the floor stay as they were when the run began.
    """
    signing = signing_key(state.key_directory(), os.environ, key)
    now = runs.ask(run, {"do": "about"})
    bundle = Bundle(run, int(str(now["epoch"])), load_file(file, _variables(now))).sign(signing)
    _tell(runs.ask(run, {"do": "apply", "bundle": bundle.decode(), "dry_run": dry_run}))


@click.command()
@to
@click.argument("run")
@click.argument("file", metavar="FILE")
@click.option("--for", "duration", required=True, metavar="DURATION", help="How long, such as 90s or 10m.")
def grant(runs: Runs, run: str, file: str, duration: str) -> None:
    """Add the allow rules of FILE to RUN for a while."""
    with open(file, encoding="utf-8") as opened:
        policy = load(opened.read(), file, _variables(runs.ask(run, {"do": "about"})))
    try:
        seconds = values.duration(duration)
    except ValueError as error:
        raise UsageError(f"`{duration}` is no duration: {error}") from error
    rules = json.dumps(policy.canonical())
    _tell(runs.ask(run, {"do": "grant", "rules": rules, "seconds": seconds}))


@click.command()
@to
@click.argument("run")
@click.argument("name", metavar="GRANT")
def revoke(runs: Runs, run: str, name: str) -> None:
    """Take a grant back before it is over."""
    _tell(runs.ask(run, {"do": "revoke", "grant": name}))


@click.command()
@to
@click.argument("run")
def freeze(runs: Runs, run: str) -> None:
    """Allow RUN nothing more, until a policy is pushed."""
    _tell(runs.ask(run, {"do": "freeze"}))


@click.command()
@click.argument("file", metavar="FILE|NAME")
def drop(file: str) -> None:
    """Give up whatever FILE does not allow; asked by an agent, for itself, until its run ends."""
    from helm_sentry.control import handover

    workspace, home = os.getcwd(), os.path.expanduser("~")
    variables = {"workspace": workspace, "home": home, "tmp": os.environ.get("TMPDIR", "/tmp")}  # noqa: S108
    policy = load_file(file, variables | {"user": os.environ.get("USER", ""), "program": sys.executable})
    _tell(handover.drop(json.dumps(policy.canonical())))


def _tell(answer: Fields) -> None:
    click.echo(json.dumps(answer))
    notes: Any = answer.get("notes", [])
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _variables(about: Fields) -> dict[str, str]:
    """Return what the run's variables stand for."""
    variables: Any = about["variables"]
    return {str(name): str(text) for name, text in variables.items()}
