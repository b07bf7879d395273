"""The option that chooses how an agent's calls reach the supervisor."""

import click

TIERS = ("auto", "seccomp", "ptrace")
tier = click.option(
    "--tier",
    default="auto",
    type=click.Choice(TIERS),
    help="How calls are intercepted (default: auto, the quickest that this host has).",
)
