"""`helm-sentry attack`: try to get past a policy, on this machine."""

import json
from dataclasses import asdict

import click

from helm_sentry.cli.tier import tier as with_tier


@click.command()
@click.option("--policy", default="default", metavar="FILE|NAME", help="Policy to attack, or a shipped one by name.")
@with_tier
@click.option("--seconds", default=2.0, metavar="S", help="How long each race lasts (default: 2).")
@click.option("--only", "names", multiple=True, metavar="NAME", help="Only this attack or group; may be repeated.")
@click.option("--one-run", is_flag=True, help="All attacks in one run, quicker; one that ends it hides what follows.")
@click.option("--accept-degraded", is_flag=True, help="Run although a layer is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the scorecard as JSON.")
def attack(
    policy: str,
    tier: str,
    seconds: float,
    names: tuple[str, ...],
    one_run: bool,
    accept_degraded: bool,
    as_json: bool,
) -> None:
    """Try to get past a policy, and print a scorecard.

    Each attack is a small program. It is run without a supervisor first, where it must succeed, then under one with
    the policy. Everything happens in a throw-away directory with decoys; no file of yours is read or changed.
    Exit status 1 means that an attack got through, or that a control failed.
    """
    # Imported here: the other commands start without the supervisor's machinery.
    from helm_sentry.attack.catalogue import attacks
    from helm_sentry.attack.scorecard import Result, closing, counts, lines
    from helm_sentry.attack.suite import Settings, play

    chosen = [each for each in attacks() if not names or each.name in names or each.group in names]
    if not chosen:
        raise click.BadParameter("there is no such attack", param_hint="--only")
    settings = Settings(policy=policy, tier=tier, seconds=seconds, accept_degraded=accept_degraded, together=one_run)
    outcomes = []
    if not as_json:
        click.echo(f"  {'attack':<28} {'natively':<13} under `{policy}`")
    for outcome in play(chosen, settings):
        outcomes.append(outcome)
        if not as_json:
            for line in lines(outcome):
                click.echo(line if outcome.result is Result.STOPPED else click.style(line, bold=True))
    count = counts(outcomes)
    if as_json:
        click.echo(json.dumps({"policy": policy, "counts": count, "attacks": [asdict(o) for o in outcomes]}, indent=2))
    else:
        click.echo(closing(outcomes))
    if count[Result.THROUGH] or count[Result.UNPROVEN]:
        raise SystemExit(1)
