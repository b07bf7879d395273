"""The `helm-sentry` command: one group, one place where errors become exit statuses."""

import sys
from importlib import import_module
from typing import Any

import click

from helm_sentry import __version__
from helm_sentry.cli.failure import report
from helm_sentry.errors import SentryError

# Each is a function in a module of its own name, loaded when it is asked for: `run` waits for no other's machinery.
_COMMANDS = (
    "approvals",
    "attack",
    "audit",
    "bench",
    "conform",
    "daemon",
    "demo",
    "doctor",
    "evidence",
    "inspect",
    "keys",
    "kill",
    "learn",
    "logs",
    "policy",
    "ps",
    "receipt",
    "run",
    "standby",
    "verify",
)


class Group(click.Group):
    """A command group that reports the project's own errors in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"helm_sentry.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a `SentryError` becomes a line on standard error and its exit status."""
        try:
            return super().invoke(ctx)
        except SentryError as error:
            sys.exit(report(error))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="helm-sentry")
def main() -> None:
    """Run AI agents with no authority of their own.

    Every file, program and network address an agent reaches is decided by a policy that denies by default, carried
    out by the supervisor, and recorded in a log anyone can verify.
    """
