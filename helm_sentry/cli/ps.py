"""`helm-sentry ps`."""

import json
from collections.abc import Mapping
from typing import Any

import click

from helm_sentry.audit.canonical import Fields
from helm_sentry.cli.to import to
from helm_sentry.control.client import Runs


@click.command()
@to
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def ps(runs: Runs, as_json: bool) -> None:
    """Show the runs that go on, and what they are under; one that an agent started, below its own."""
    found = {str(about["run"]): about for about in runs.everywhere({"do": "about"})}
    for about in found.values():
        if as_json:
            click.echo(json.dumps(about))
        elif about.get("parent") not in found:
            _show(found, about, "")
    if not found and not as_json:
        click.echo("no run goes on", err=True)


def _show(found: Mapping[str, Fields], about: Fields, indent: str) -> None:
    role = f", role {about['role']}" if about["role"] else ""
    frozen = ", frozen" if about["frozen"] else ""
    counts: Any = about["decisions"]
    words = f"policy {about['name']}{role}, epoch {about['epoch']}{frozen}, {about['waiting']} waiting"
    click.echo(f"{indent}{about['run']}  {words}, {counts.get('DENY', 0)} denied, process {about['agent']}")
    for below in found.values():
        if below.get("parent") == about["run"]:
            _show(found, below, indent + "  ")
