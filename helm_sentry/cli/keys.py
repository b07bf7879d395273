"""`helm-sentry keys`: the key that signs, and the keys that are trusted."""

import json

import click

from helm_sentry.errors import UsageError
from helm_sentry.receipt import keyring
from helm_sentry.receipt.keys import PublicKey, load_public_key
from helm_sentry.receipt.pkcs8 import public_pem
from helm_sentry.state import key_directory


@click.group()
def keys() -> None:
    """Manage the key that signs, and the keys that are trusted.

    A run signs with the key in the state directory, which is made on first use, unless `run --key FILE`, the
    descriptor in HELM_SENTRY_KEY_FD or the systemd credential helm-sentry.key gives another one.
    """


@keys.command()
def generate() -> None:
    """Make the signing key, if there is none, and print its id."""
    click.echo(keyring.generate(key_directory()).public.id)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_keys(as_json: bool) -> None:
    """List the keys that this machine knows."""
    entries = list(keyring.known(key_directory()))
    if as_json:
        rows = [{"id": entry.key.id, "role": entry.role, "public_key": entry.key.data.hex()} for entry in entries]
        click.echo(json.dumps(rows, indent=2))
        return
    for entry in entries:
        click.echo(f"{entry.key.id}  {entry.role}")


@keys.command()
@click.argument("key_id", metavar="[ID]", default="")
@click.option(
    "--format",
    "form",
    type=click.Choice(["line", "pem", "hex"]),
    default="line",
    help="As helm-sentry writes it (default), for openssl, or as bare digits.",
)
def export(key_id: str, form: str) -> None:
    """Print a public key, by default that of the signing key.

    Private keys are never printed.
    """
    key = _find(key_id)
    texts = {"line": key.export(), "pem": public_pem(key.data), "hex": key.data.hex().encode() + b"\n"}
    click.echo(texts[form].decode(), nl=False)


@keys.command()
def rotate() -> None:
    """Put a new signing key in the old one's place and print both ids.

    The old private key is gone afterwards. Its public half stays, so earlier runs are still known as this machine's.
    """
    old, new = keyring.rotate(key_directory())
    click.echo(f"{old.id} retired; {new.public.id} signs from now on: hand it out with `helm-sentry keys export`")


@keys.command()
@click.argument("key", metavar="KEY")
@click.option("--remove", is_flag=True, help="Trust it no longer; KEY is an id then.")
def trust(key: str, remove: bool) -> None:
    """Trust somebody else's public key: a file, or 64 hex digits.

    Make sure that it is theirs. A key that lies in a run directory proves nothing about who made the run.
    """
    if remove:
        keyring.distrust(key_directory(), key)
        click.echo(f"{key} is not trusted any more")
        return
    found = load_public_key(key)
    keyring.trust(key_directory(), found)
    click.echo(f"{found.id} is trusted")


def _find(key_id: str) -> PublicKey:
    entries = list(keyring.known(key_directory()))
    found = [entry.key for entry in entries if entry.key.id == key_id or (not key_id and entry.role == "signing")]
    if not found:
        wanted = f"key `{key_id}`" if key_id else "signing key yet; `helm-sentry keys generate` makes one"
        raise UsageError(f"there is no {wanted}")
    return found[0]
