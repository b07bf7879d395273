"""`helm-sentry conform`: HELM's negative vectors, met by live processes."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, with the signed findings.")
@click.option("--output", "-o", metavar="FILE", help="New file for the signed findings, one envelope a line.")
def conform(as_json: bool, output: str | None) -> None:
    """Meet HELM AI Kernel's negative vectors with live processes.

    Of the 43 that HELM declares, the 14 that a kernel can observe. Each is done under the supervisor, and first, where
    it is an act, without: there it must succeed. The receipt of every refusal is verified. The runs stay in this user's
    state directory, where `helm-sentry receipt show RUN RECORD` finds it. The last two vectors are about receipts that
    are missing, so theirs are the signed findings: `helm-sentry receipt verify FILE` reads what --output wrote. Exit
    status 1 means that a vector did not come out as expected.
    """
    # Imported here: the other commands start without them.
    from helm_sentry import state
    from helm_sentry.cli.lines import write_lines
    from helm_sentry.evidence.conform import conform as meet
    from helm_sentry.evidence.trial import key_environment
    from helm_sentry.receipt.keyring import signing_key

    results = []
    for result in meet(signing_key(state.key_directory(), key_environment())):
        results.append(result)
        if not as_json:
            _print(result.fields())
    good = sum(result.passed for result in results)
    if output:
        write_lines(output, (result.envelope for result in results))
    if as_json:
        click.echo(json.dumps([result.fields() for result in results], indent=2))
    else:
        click.echo(f"{good} of {len(results)} as expected")
    if good < len(results):
        raise SystemExit(1)


def _print(fields: dict[str, object]) -> None:
    mark = click.style("ok  ", fg="green") if fields["passed"] else click.style("FAIL", fg="red", bold=True)
    place = f"run {fields['run']}" + ("" if fields["record"] is None else f", record {fields['record']}")
    click.echo(f"{mark} {fields['id']}: {fields['trigger']}")
    click.echo(f"     {fields['verdict'] or 'nothing decided'} {fields['reason_code']}")
    click.echo(f"     ran {fields['ran']}")
    click.echo(f"     {place}, receipt sha256:{fields['receipt_sha256']}")
    for fault in fields["faults"] if isinstance(fields["faults"], list) else ():
        click.echo(click.style(f"     {fault}", fg="red"))
