"""`helm-sentry evidence`: packs for an auditor, and host evidence against HELM's receipts."""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helm_sentry import state
from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.cli.lines import write_lines
from helm_sentry.cli.trust import public_key_option, trusted_keys
from helm_sentry.errors import UsageError, VerificationError, printable
from helm_sentry.receipt.check import check_run, sentence
from helm_sentry.receipt.keyring import own_key
from helm_sentry.receipt.keys import PublicKey, load_public_key
from helm_sentry.receipt.report import RunFiles
from helm_sentry.receipt.store import read_run

if TYPE_CHECKING:
    from helm_sentry.evidence.acts import Account
    from helm_sentry.evidence.correlate import Finding
    from helm_sentry.evidence.host_chain import HostChain

_MOST = 1 << 28  # bytes of a chain or of a file of receipts
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_README = os.path.join(_PACKAGE, "evidence", "README.pack.md")


@click.group()
def evidence() -> None:
    """Make, check and compare evidence of runs."""


@evidence.command()
@click.argument("run", metavar="RUN")
@click.option("--output", "-o", required=True, metavar="PATH", help="New directory, or an archive if it ends in .tar.")
@click.option(
    "--layout",
    type=click.Choice(["numbered", "spec"]),
    default="numbered",
    help="HELM's numbered layout (default), or that of its specification.",
)
@click.option("--allow-unsealed", is_flag=True, help="Accept a run that ended without its receipt.")
def export(run: str, output: str, layout: str, allow_unsealed: bool) -> None:
    """Make an EvidencePack of a run, after verifying it.

    The pack holds the run as it is, and what it comes to in the formats of HELM AI Kernel: receipts, boundary
    records, sandbox grant, proof graph, host chain, signed statements. It is signed with this user's key.
    """
    # Imported here, as in the other commands below: `--help` and the other families start without them.
    from helm_sentry.evidence import pack
    from helm_sentry.evidence.folder import read_directory, write_pack
    from helm_sentry.standalone.assemble import assemble

    directory = state.run_directory(run)
    report = check_run(directory, (), pinned=False, allow_unsealed=allow_unsealed)
    key = own_key()
    words = {"README.md": Path(_README).read_bytes(), "verify_alone.py": assemble()}
    found = _account(directory)
    files = pack.build(found, read_directory(directory), pack.Layout(layout), key, words)
    write_pack(files, output)
    signer = "" if report.key == key.public.id else f"; the run was signed by key {report.key}"
    click.echo(f"{output}: {len(files):,} files, {len(found.acts):,} acts, signed by key {key.public.id}{signer}")


@evidence.command("verify")
@click.argument("source", metavar="PACK")
@public_key_option
@click.option("--allow-unsealed", is_flag=True, help="Accept a run that ended without its receipt.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify_pack(source: str, public_keys: tuple[str, ...], allow_unsealed: bool, as_json: bool) -> None:
    """Verify an EvidencePack and the run in it, offline.

    The pack may be signed by another key than the run, as after `keys rotate`; with --public-key both must be named.
    Without, they are checked against the keys that lie in the pack, which count as trusted if they are this machine's
    own or were added with `helm-sentry keys trust`.
    """
    from helm_sentry.evidence import manifest, pack
    from helm_sentry.evidence.folder import read_pack, write_pack

    files, keys = read_pack(source), trusted_keys(public_keys)
    key = manifest.signer(files)
    if public_keys and key not in keys:
        pinned = " or ".join(f"`{one.id}`" for one in keys)
        raise VerificationError(f"the pack was signed by key `{key.id}`, not by {pinned}")
    run_files = pack.verify(files, key)
    with tempfile.TemporaryDirectory(prefix="helm-sentry-pack-") as scratch:
        directory = os.path.join(scratch, "run")
        write_pack(run_files, directory)
        report = check_run(directory, keys, pinned=bool(public_keys), allow_unsealed=allow_unsealed)
    fields: Fields = {"files": len(files), "key": key.id, "trusted": key in keys, "run": report.fields()}
    trust = "trusted" if key in keys else "not pinned: pass --public-key to pin"
    words = f"ok: {len(files):,} files, signed by key {key.id} ({trust})", f"run {report.run}: {sentence(report)}"
    click.echo(json.dumps(fields, indent=2) if as_json else "\n".join(map(printable, words)))


@evidence.command()
@click.option("--host", "hosts", required=True, multiple=True, metavar="CHAIN", help="Host chain; may be repeated.")
@click.option("--helm", required=True, metavar="RECEIPTS", help="HELM's receipts.")
@click.option("--host-key", metavar="KEY", help="Key of the host chains (default: those known here).")
@click.option("--helm-key", "helm_keys", multiple=True, metavar="KEY", help="Key of HELM's receipts; may be repeated.")
@click.option("--accept-unsigned-helm", is_flag=True, help="Take HELM's receipts without checking who wrote them.")
@click.option(
    "--window", type=click.IntRange(1, 86400), default=300, show_default=True, help="Seconds between the two."
)
@click.option("--output", "-o", metavar="FILE", help="New file for the signed findings, one envelope a line.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def correlate(
    hosts: tuple[str, ...],
    helm: str,
    host_key: str | None,
    helm_keys: tuple[str, ...],
    accept_unsigned_helm: bool,
    window: int,
    output: str | None,
    as_json: bool,
) -> None:
    """Compare what the host observed with what HELM decided.

    Both are verified first. Every difference is signed as Boundary Drift. Exit status 1 means that there is one, 121
    that a chain or a receipt is not what was signed.
    """
    from helm_sentry.evidence import intents
    from helm_sentry.evidence.correlate import correlate as compare
    from helm_sentry.evidence.correlate import drift_receipt
    from helm_sentry.evidence.serial import instant
    from helm_sentry.evidence.statement import DRIFT, sign

    key = own_key()
    chains = [_chain(path, trusted_keys([host_key] if host_key else [])) for path in hosts]
    decided = intents.read(_read(helm), list(map(load_public_key, helm_keys)), accept_unsigned=accept_unsigned_helm)
    findings = compare(chains, decided, float(window))
    now = instant(time.time_ns() // 1000)
    signed = [sign(DRIFT, drift_receipt(finding, now), key).decode() for finding in findings if finding.drift]
    if output:
        write_lines(output, signed)
    if as_json:
        result = {
            "findings": [finding.fields() for finding in findings],
            "drift": [json.loads(text) for text in signed],
        }
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo("\n".join(_lines(findings)))
    loose = sorted({finding.intent.id for finding in findings if finding.intent and not finding.intent.bound})
    if loose:
        note = "nothing signed holds where HELM says traffic was to go, and how much, in its receipt"
        click.echo(printable(f"note: {note} {', '.join(loose)}"), err=True)
    for chain, path in zip(chains, hosts, strict=True):
        if chain.open_ended:
            click.echo(f"note: {path} does not say how many receipts it has; its tail may be missing", err=True)
    if signed:
        raise SystemExit(1)


def _account(directory: str) -> "Account":
    from helm_sentry.evidence.acts import account

    files = read_run(directory)
    policy = loads(files.documents["policy.json"])
    return account(_records(files), policy if isinstance(policy, dict) else {})


def _records(files: RunFiles) -> Iterator[Fields]:
    for line in _complete(line for segment in files.segments for line in segment.lines):
        record = loads(line)
        if isinstance(record, dict):
            yield record


def _complete(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines that were written whole; the last one of an unsealed run may not have been."""
    return (line for line in lines if line.endswith(b"\n"))


def _lines(findings: Iterable["Finding"]) -> Iterator[str]:
    for finding in findings:
        what = finding.event.what if finding.event else "no event"
        intent = finding.intent.id if finding.intent else "no intent"
        tail = f"  ({finding.detail})" if finding.detail else ""
        text = printable(f"{finding.status:<40} {what} <- {intent}{tail}")
        yield click.style(text, fg="red", bold=True) if finding.drift else text


def _chain(path: str, keys: Sequence[PublicKey]) -> "HostChain":
    """Return a host chain that one of the keys signed."""
    from helm_sentry.evidence import host_chain

    data, fault = _read(path), VerificationError(f"`{path}`: there is no key to verify it with; pass --host-key")
    for key in keys:
        try:
            return host_chain.verify(data, key)
        except VerificationError as error:
            fault = error
    raise VerificationError(f"`{path}`: {fault}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(data) > _MOST:
        raise UsageError(f"`{path}` is larger than {_MOST:,} bytes")
    return data
