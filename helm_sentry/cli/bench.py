"""`helm-sentry bench`: what supervision costs on this machine."""

import os
import subprocess
import sys

import click

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Inside an installed package, or in the checkout.
_PLACES = (os.path.join(_PACKAGE, "benchmarks"), os.path.join(os.path.dirname(_PACKAGE), "benchmarks"))
_SHARED = ("harness", "chart", "servers")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("question", default="quick")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def bench(question: str, options: tuple[str, ...]) -> None:
    """Measure what supervision costs on this machine.

    Unsupervised runs take turns with supervised ones. Without QUESTION it takes the quick one; `list` names the
    others. `helm-sentry bench QUESTION --help` tells the method and the options: rounds, JSON, a chart, a baseline to
    compare with. A C compiler is needed.
    """
    directory = next(place for place in _PLACES if os.path.isdir(place))
    questions = sorted(name[:-3] for name in os.listdir(directory) if name.endswith(".py") and name[:-3] not in _SHARED)
    if question == "list":
        click.echo("\n".join(questions))
        return
    if question not in questions:
        raise click.BadParameter(f"`{question}` is not measured; `helm-sentry bench list` names what is")
    script = os.path.join(directory, f"{question}.py")
    raise SystemExit(subprocess.run([sys.executable, script, *options], check=False).returncode)
