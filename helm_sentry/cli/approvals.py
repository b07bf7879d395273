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

_digest = click.option("--digest", default="", metavar="HEX", help="Only if the question has it: see `list --json`.")


@click.group()
def approvals() -> None:
    """Answer what agents wait for.

    A rule with `otherwise: escalate` holds a call until somebody answers; time denies. A question is named RUN/NUMBER.
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
@_digest
def approve(runs: Runs, question: str, for_run: bool, always: bool, digest: str) -> None:
    """Allow a call that waits."""
    if for_run and always:
        raise UsageError("`--run` and `--always` are two answers; give one")
    _answer(runs, question, "always" if always else "run" if for_run else "once", digest)


@approvals.command()
@to
@click.argument("question")
@_digest
def deny(runs: Runs, question: str, digest: str) -> None:
    """Refuse a call that waits."""
    _answer(runs, question, "deny", digest)


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


def _answer(runs: Runs, name: str, choice: str, digest: str) -> None:
    run, number = _named(name)
    question = runs.ask(run, {"do": "answer", "question": number, "choice": choice, "digest": digest})
    click.echo(f"{'denied' if choice == 'deny' else 'approved'}: " + " ".join(_lines(question)))


def _lines(question: Fields) -> list[str]:
    lines = question["lines"]
    return [str(line).strip() for line in lines] if isinstance(lines, list) else []


def _named(name: str) -> tuple[str, int]:
    """Return run and number; both are needed, as another run may ask by the time somebody has read the question."""
    run, _, number = name.rpartition("/")
    if not run or not number.isascii() or not number.isdigit():
        raise UsageError(
            f"`{name}` names no question; `helm-sentry approvals list` shows those that wait, as RUN/NUMBER"
        )
    return run, int(number)
