"""`helm-sentry run`."""

import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from helm_sentry.cli.failure import report
from helm_sentry.cli.tier import tier as with_tier
from helm_sentry.errors import SentryError
from helm_sentry.options import Hosted, Options


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--policy", default="default", metavar="FILE|NAME", help="Policy file, or a shipped policy by name.")
@click.option(
    "--workspace",
    default=".",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Directory the agent starts and works in (default: here).",
)
@with_tier
@click.option("--user", default="", metavar="NAME", help="Run the agent as this user (root only).")
@click.option("--accept-degraded", is_flag=True, help="Run although a layer is missing; every record says so.")
@click.option("--max-policy-age", metavar="DURATION", help="Refuse a policy file written longer ago, such as 24h.")
@click.option("--dry-run", is_flag=True, help="Perform what the policy denies; only record it.")
@click.option("--durable", is_flag=True, help="Have each record on the disk before what it tells is done; slow.")
@click.option(
    "--approve-within",
    default=120.0,
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Deny what needs approval after so long (default: 120).",
)
@click.option("--key", default="", metavar="FILE", help="Private key to sign with: ours, or PKCS#8.")
@click.option("--watch", is_flag=True, help="Read the policy file again when it changes, and on SIGHUP.")
@click.option("--no-witness", is_flag=True, help="Do not have the kernel count the calls a second time.")
@click.option("--quiet", is_flag=True, help="Say nothing on standard error.")
@click.option("--alone", is_flag=True, help="Supervise here, although there is a daemon.")
@click.option("--detach", is_flag=True, help="Leave the run to the daemon and print its id.")
@click.argument("command", nargs=-1, required=True)
@click.pass_obj
def run(
    hosted: Hosted | None,
    policy: str,
    workspace: str,
    tier: str,
    user: str,
    accept_degraded: bool,
    max_policy_age: str | None,
    dry_run: bool,
    durable: bool,
    approve_within: float,
    key: str,
    watch: bool,
    no_witness: bool,
    quiet: bool,
    alone: bool,
    detach: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND under a policy.

    The command's input, output, terminal, signals and exit status are its own. Status 125 means that the supervisor
    failed; 126 and 127 that COMMAND could not be run, as in a shell.

    Where a daemon serves this user's runs it hosts this one, unless the command has a terminal.
    """
    # Imported here: the other commands, and `--help`, start without the supervisor's machinery.
    from helm_sentry.control import handover
    from helm_sentry.session import run as run_session

    gc.freeze()
    gc.enable()  # `cli/entry.py` has switched it off

    options = Options(
        command=command,
        policy=policy,
        workspace=workspace,
        tier=tier,
        user=user,
        accept_degraded=accept_degraded,
        max_policy_age=_seconds(max_policy_age),
        dry_run=dry_run,
        durable=durable,
        approve_within=approve_within,
        watch=watch,
        quiet=quiet,
        witness=not no_witness,
        key=key,
        hosted=hosted,
    )
    if detach:
        click.echo(handover.detach(options))
        return
    if hosted:
        from helm_sentry.hosted import serve

        _end_with(lambda: serve(options, hosted))
    if not alone and (status := handover.run(options)) is not None:
        sys.exit(status)
    _end_with(lambda: run_session(options))


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Do the work and end this process at once with its status.

    What must last is on the disk. To take the interpreter apart costs 30 ms, and while threads of a run that has failed
    still serve it can end in SIGABRT.
    """
    try:
        status = work()
    except SentryError as error:
        status = report(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _seconds(text: str | None) -> int | None:
    # Imported here for the same reason.
    from helm_sentry.policy.values import duration

    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-policy-age") from error
