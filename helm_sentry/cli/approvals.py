"""`helm-sentry approvals`."""

import json
from collections.abc import Iterator

import click

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.errors import UsageError


@click.group()
def approvals() -> None:
    """Answer what agents wait for.

    A rule with `otherwise: escalate` holds a call until somebody answers; time denies. A question is named RUN/NUMBER,
    or by its number alone where one run asks.
    """


@approvals.command("list")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def list_(as_json: bool) -> None:
    """Show the calls that wait."""
    found = list(_waiting())
    for run, question in found:
        if as_json:
            click.echo(json.dumps({"run": run, **question}))
        else:
            click.echo(f"{run}/{question['question']}  ({question['left']} s left)")
            for line in _lines(question):
                click.echo(f"  {line}")
    if not found and not as_json:
        click.echo("nothing waits", err=True)


@approvals.command()
@click.argument("question")
@click.option("--run", "for_run", is_flag=True, help="Also the same again until the run ends.")
@click.option("--always", is_flag=True, help="Also in later runs of this very policy.")
def approve(question: str, for_run: bool, always: bool) -> None:
    """Allow a call that waits."""
    _answer(question, "always" if always else "run" if for_run else "once")


@approvals.command()
@click.argument("question")
def deny(question: str) -> None:
    """Refuse a call that waits."""
    _answer(question, "deny")


def _answer(name: str, choice: str) -> None:
    from helm_sentry.control.client import ask

    run, number = _named(name)
    for question in ask(state.control_directory(), run, {"do": "answer", "question": number, "choice": choice}):
        click.echo(f"{'denied' if choice == 'deny' else 'approved'}: " + " ".join(_lines(question)))


def _lines(question: Fields) -> list[str]:
    lines = question["lines"]
    return [str(line).strip() for line in lines] if isinstance(lines, list) else []


def _named(name: str) -> tuple[str, int]:
    run, _, number = name.rpartition("/")
    if not number.isascii() or not number.isdigit():
        raise UsageError(f"`{name}` names no question; `helm-sentry approvals list` shows those that wait")
    if run:
        return run, int(number)
    runs = [run for run, question in _waiting() if question["question"] == int(number)]
    if len(runs) != 1:
        what = "no run" if not runs else "more than one run"
        raise UsageError(f"{what} asks question {number}; name it as `helm-sentry approvals list` shows it")
    return runs[0], int(number)


def _waiting() -> Iterator[tuple[str, Fields]]:
    from helm_sentry.control.client import Unreachable, ask, live_runs

    directory = state.control_directory()
    for run in live_runs(directory):
        try:
            yield from [(run, question) for question in ask(directory, run, {"do": "questions"})]
        except Unreachable:
            continue  # it has just ended, or was killed
