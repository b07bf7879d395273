"""`helm-sentry approvals`."""

import json
import time

import click

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.cli.to import to
from helm_sentry.control.client import Runs
from helm_sentry.control.standing import forget, kept
from helm_sentry.errors import UsageError


@click.group()
def approvals() -> None:
    """Answer what agents wait for.

    A rule with `otherwise: escalate` holds a call until somebody answers; time denies. A question is named RUN/NUMBER,
    or by its number alone where one run asks.
    """


@approvals.command("list")
@to
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def list_(runs: Runs, as_json: bool) -> None:
    """Show the calls that wait."""
    found = list(runs.everywhere({"do": "questions"}))
    for question in found:
        if as_json:
            click.echo(json.dumps(question))
        else:
            click.echo(f"{question['run']}/{question['question']}  ({question['left']} s left)")
            for line in _lines(question):
                click.echo(f"  {line}")
    if not found and not as_json:
        click.echo("nothing waits", err=True)


@approvals.command()
@to
@click.argument("question")
@click.option("--run", "for_run", is_flag=True, help="Also the same again until the run ends.")
@click.option("--always", is_flag=True, help="Also in later runs of this very policy.")
def approve(runs: Runs, question: str, for_run: bool, always: bool) -> None:
    """Allow a call that waits."""
    _answer(runs, question, "always" if always else "run" if for_run else "once")


@approvals.command()
@to
@click.argument("question")
def deny(runs: Runs, question: str) -> None:
    """Refuse a call that waits."""
    _answer(runs, question, "deny")


@approvals.command("kept")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def kept_(as_json: bool) -> None:
    """Show the answers that outlive their run: `always`."""
    for answer in kept(state.approvals_directory()):
        if as_json:
            fields = {name: getattr(answer, name) for name in ("name", "rule", "lines", "by", "time")}
            click.echo(json.dumps(fields))
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(answer.time / 1e6))
            click.echo(f"{answer.name}  by rule {answer.rule}, {when} UTC, {answer.by}")
            for line in answer.lines:
                click.echo(f"  {line}")


@approvals.command("forget")
@click.argument("name", metavar="ANSWER")
def forget_(name: str) -> None:
    """Take an answer back that outlives its run, as `kept` names it.

    Runs that begin from now on ask again; those that go on have read it.
    """
    found = [answer for answer in kept(state.approvals_directory()) if answer.name == name]
    if not found:
        raise UsageError(f"no answer `{name}` is kept; `helm-sentry approvals kept` shows them")
    forget(found[0])
    click.echo(f"forgotten: {' '.join(found[0].lines)}")


def _answer(runs: Runs, name: str, choice: str) -> None:
    run, number = _named(runs, name)
    question = runs.ask(run, {"do": "answer", "question": number, "choice": choice})
    click.echo(f"{'denied' if choice == 'deny' else 'approved'}: " + " ".join(_lines(question)))


def _lines(question: Fields) -> list[str]:
    lines = question["lines"]
    return [str(line).strip() for line in lines] if isinstance(lines, list) else []


def _named(runs: Runs, name: str) -> tuple[str, int]:
    run, _, number = name.rpartition("/")
    if not number.isascii() or not number.isdigit():
        raise UsageError(f"`{name}` names no question; `helm-sentry approvals list` shows those that wait")
    if run:
        return run, int(number)
    asking = [str(each["run"]) for each in runs.everywhere({"do": "questions"}) if each["question"] == int(number)]
    if len(asking) != 1:
        what = "no run" if not asking else "more than one run"
        raise UsageError(f"{what} asks question {number}; name it as `helm-sentry approvals list` shows it")
    return asking[0], int(number)
