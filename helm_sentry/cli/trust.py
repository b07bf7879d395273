"""Which keys a verifier trusts: those on the command line, else those that this machine knows."""

from collections.abc import Sequence

import click

from helm_sentry.receipt.keyring import known
from helm_sentry.receipt.keys import PublicKey, load_public_key
from helm_sentry.state import key_directory

public_key_option = click.option(
    "--public-key",
    "public_keys",
    metavar="KEY",
    multiple=True,
    help="Key that must have signed: a file, or 64 hex digits. May be repeated.",
)


def trusted_keys(named: Sequence[str]) -> list[PublicKey]:
    """Return the keys that were named, or if none was, this machine's own and those it was told to trust."""
    return [load_public_key(name) for name in named] or [entry.key for entry in known(key_directory())]
