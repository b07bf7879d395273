"""The option that chooses how an agent's calls reach the supervisor."""

import click

TIERS = ("auto", "seccomp", "ptrace", "kernel")
tier = click.option(
    "--tier",
    default="auto",
    type=click.Choice(TIERS),
    help="How calls are intercepted (default: auto); kernel: reading is left to the kernel where it can hold it.",
)
