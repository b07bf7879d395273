"""`helm-sentry learn`: watch runs, write the policy that allows them."""

import os
import sys
import tempfile

import click

from helm_sentry.errors import UsageError, printable
from helm_sentry.policy import draft, pattern
from helm_sentry.policy.draft import Draft
from helm_sentry.policy.explain import quoted
from helm_sentry.policy.learn import learn as learn_from
from helm_sentry.policy.observation import ObservedRun, read_log
from helm_sentry.receipt.store import read_run
from helm_sentry.state import run_directory

_PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "COLORTERM", "COLUMNS",
    "LINES", "PWD", "VIRTUAL_ENV",
)  # fmt: skip
_TOLD = 10


@click.command(name="learn", context_settings={"allow_interspersed_args": False})
@click.option("-o", "--output", required=True, metavar="FILE", help="Policy file to write; must not exist.")
@click.option("--from", "earlier", multiple=True, metavar="RUN", help="Merge an earlier dry run; may be repeated.")
@click.option("--name", default="", metavar="NAME", help="Name of the policy (default: that of FILE).")
@click.option("--extends", default="base", metavar="PACK", help="What it builds on (default: base).")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Host the program talks to; may be repeated.")
@click.option("--pass", "passed", multiple=True, metavar="VARIABLE", help="Environment variable it needs.")
@click.option(
    "--workspace",
    default=".",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Directory the program starts and works in (default: here).",
)
@click.option("--user", default="", metavar="NAME", help="Run the program as this user (root only).")
@click.argument("command", nargs=-1)
def learn(
    output: str,
    earlier: tuple[str, ...],
    name: str,
    extends: str,
    hosts: tuple[str, ...],
    passed: tuple[str, ...],
    workspace: str,
    user: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND and write the smallest policy that fits it.

    COMMAND runs unhindered, with your authority, as in a dry run: use it for programs you trust, on input you trust.
    Secrets are never granted, but listed. The exit status is COMMAND's.
    """
    if not command and not earlier:
        raise UsageError("nothing to learn from; give a command, or runs with --from")
    if os.path.lexists(output):
        raise UsageError(f"`{output}` exists; choose another name, or remove it first")
    header = _header(name or _name_of(output), extends, passed)
    status, directories = 0, [run_directory(run) for run in earlier]
    if command:
        status, directory = _watch(header, hosts, workspace, user, command)
        directories.append(directory)
    runs = [read_log(read_run(directory).log, number) for number, directory in enumerate(directories, 1)]
    learnt = learn_from(runs, header)
    with open(output, "x", encoding="utf-8") as file:
        file.write(draft.text(learnt))
    _tell(output, learnt, runs)
    sys.exit(status)


def _name_of(output: str) -> str:
    stem = os.path.basename(output).partition(".")[0].lower()
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem).strip("-") or "learnt"


def _header(name: str, extends: str, passed: tuple[str, ...]) -> str:
    variables = ", ".join(map(quoted, (*_PASSED, *passed)))
    return (
        f"schema: helm-sentry/policy/v1\nname: {name}\nextends: [{quoted(extends)}]\n"
        f"environment:\n  pass: [{variables}]\n  set: {{TMPDIR: '${{tmp}}'}}\n"
    )


def _watch(header: str, hosts: tuple[str, ...], workspace: str, user: str, command: tuple[str, ...]) -> tuple[int, str]:
    """Run the command dry under the beginning of the policy to be; return its exit status and the run directory."""
    # Imported here: learning from logs alone needs nothing of the supervisor.
    from helm_sentry.options import Options
    from helm_sentry.session import supervise

    rule = f"allow:\n  - id: named\n    connect: {{hosts: [{', '.join(map(quoted, hosts))}]}}\n" if hosts else ""
    with tempfile.NamedTemporaryFile("w", prefix="helm-sentry-learn-", suffix=".yaml") as file:
        file.write(header + rule)
        file.flush()
        options = Options(command=command, policy=file.name, workspace=workspace, user=user, dry_run=True, quiet=True)
        status, directory = supervise(options)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status), directory


def _tell(output: str, learnt: Draft, runs: list[ObservedRun]) -> None:
    rules = len(learnt.programs) + len(learnt.files) + len(learnt.names) + len(learnt.sockets) + len(learnt.network)
    _say(f"wrote {output}: {rules} grants from {len(runs)} run{'s' if len(runs) > 1 else ''}")
    _say(f"{learnt.once} seen once, {learnt.guessed} generalised: read them before you use the policy")
    for run in runs:
        if run.status:
            _say(f"run {run.id} ended with status {run.status}: what it did not get to is not in the policy")
        if run.enforcing:
            _say(f"run {run.id} was enforced: what it was refused is not in the policy")
    if learnt.withheld:
        _say(f"{len(learnt.withheld)} not granted:")
    for each in learnt.withheld[:_TOLD]:
        _say(f"  {each.operation.kind} {pattern.printable(each.operation.target)}: {each.why}")


def _say(text: str) -> None:
    click.echo(f"helm-sentry: {printable(text)}", err=True)
