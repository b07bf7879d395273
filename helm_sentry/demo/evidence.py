"""What a run left on the disk, verified: its records, its receipts, its plan."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from helm_sentry import state
from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.errors import SentryError, VerificationError
from helm_sentry.receipt.envelope import Envelope
from helm_sentry.receipt.keys import PublicKey, load_public_key
from helm_sentry.receipt.receipt import decision_statement
from helm_sentry.receipt.report import Report
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A run directory, read and checked.

    Attributes:
        directory: where it is.
        records: the log.
        receipts: sequence numbers of the records whose own receipt verifies.
        layers: what holds each kind of operation, by the plan.
        report: what verification found; None when the run does not verify.
        fault: why it does not.
    """

    directory: str
    records: tuple[Fields, ...]
    receipts: frozenset[int]
    layers: dict[str, tuple[str, ...]]
    report: Report | None = None
    fault: str = ""

    @property
    def run(self) -> str:
        """The run's id."""
        return os.path.basename(self.directory)


def find_run(mark: str) -> str:
    """Return the directory of the run whose command line contains `mark`.

    Raises:
        SentryError: there is none.
    """
    runs = os.path.join(state.state_directory(), "runs")
    for name in sorted(os.listdir(runs), reverse=True) if os.path.isdir(runs) else ():
        if _started_with(os.path.join(runs, name, "run.json"), mark):
            return os.path.join(runs, name)
    raise SentryError("the run did not start, so there is nothing to show")


def collect(directory: str, key_directory: str) -> Evidence:
    """Read and verify a run.

    Args:
        directory: the run directory.
        key_directory: holds the public keys to trust; the one in the run is no reason to.

    Raises:
        SentryError: the directory is not that of a run, or its key is not one of those.
    """
    files = read_run(directory)
    signer = load_public_key(os.path.join(key_directory, f"{PublicKey.parse(files.public_key).id}.pub"))
    records = tuple(_objects(files.log))
    report, fault = None, ""
    try:
        report = verify_run(read_run(directory), [signer])
    except VerificationError as error:
        fault = str(error)
    return Evidence(
        directory=directory,
        records=records,
        receipts=_open_receipts(files.denials, records, signer),
        layers=_layers(files.documents["plan.json"]),
        report=report,
        fault=fault,
    )


def _open_receipts(lines: Iterable[bytes], records: tuple[Fields, ...], signer: PublicKey) -> frozenset[int]:
    """Return which records have a receipt that is signed and says just what the log says."""
    found: set[int] = set()
    for line in lines:
        try:
            statement = loads(Envelope.parse(line).open({signer.id: signer}))
        except (VerificationError, ValueError):
            continue
        sequence = statement.get("seq") if isinstance(statement, dict) else None
        if not isinstance(sequence, int) or not 0 <= sequence < len(records):
            continue
        if statement == decision_statement(records[0], records[sequence]):
            found.add(sequence)
    return frozenset(found)


def _layers(plan: bytes) -> dict[str, tuple[str, ...]]:
    layers = _object(plan).get("layers")
    members = layers.items() if isinstance(layers, dict) else ()
    return {kind: tuple(map(str, held)) for kind, held in members if isinstance(held, list)}


def _started_with(path: str, mark: str) -> bool:
    try:
        with open(path, "rb") as file:
            argv = _object(file.read()).get("argv")
    except OSError:
        return False
    return isinstance(argv, list) and any(mark in str(word) for word in argv)


def _objects(lines: Iterable[bytes]) -> Iterable[Fields]:
    return (fields for line in lines if (fields := _object(line)))


def _object(text: bytes) -> Fields:
    # A line that was damaged is verification's to report.
    try:
        value = loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
