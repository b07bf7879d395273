"""An EvidencePack of one run: which files it has, in either layout, and what must hold of them. Pure."""

from collections.abc import Mapping
from enum import StrEnum

from helm_sentry.audit.canonical import Fields, Json, dumps, loads
from helm_sentry.errors import VerificationError
from helm_sentry.evidence import artefacts, boundary, host_chain, manifest, receipt_v5, statement
from helm_sentry.evidence.acts import Account
from helm_sentry.evidence.serial import instant
from helm_sentry.receipt.keys import PublicKey, SigningKey
from helm_sentry.receipt.receipt import digest

RUN = "run/"
"""What stands before the names of the run's own files."""

_EXTENSION = "helm-sentry"


class Layout(StrEnum):
    """Where the files of a pack lie."""

    NUMBERED = "numbered"
    SPEC = "spec"


_PLACES: dict[Layout, dict[str, str]] = {
    Layout.NUMBERED: {
        RUN: "06_LOGS/run/",
        "receipts/": "02_PROOFGRAPH/receipts/",
        "graph/": "02_PROOFGRAPH/",
        "boundary/": f"99_EXT/{_EXTENSION}/",
        "host/": "11_HOST_EVIDENCE/helm-sentry/",
        "signed/": "04_EXPORTS/",
        "score/": "",
        "words/": "12_REPORTS/",
    },
    Layout.SPEC: {
        RUN: "transcripts/run/",
        "receipts/": "receipts/",
        "graph/": "replay/",
        "boundary/": "policy/",
        "host/": "host_evidence/helm-sentry/",
        "signed/": "signatures/",
        "score/": "transcripts/score/",
        "words/": "transcripts/reports/",
    },
}
_STATEMENT, _ROOT, _ENVELOPES = "signed/run.intoto.dsse.json", "signed/evidence-root.dsse.json", "signed/envelopes.json"
_GRANT, _RECORDS, _CHECKPOINT = "boundary/sandbox_grant.json", "boundary/records.json", "boundary/checkpoint.json"
_ACTIONS, _NETWORK, _GRAPH = "boundary/actions.json", "host/chain.json", "graph/proofgraph.json"


def build(
    account: Account, run_files: Mapping[str, bytes], layout: Layout, key: SigningKey, words: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the files of a pack, by path.

    Args:
        account: of a run that was verified.
        run_files: everything in the run's directory, by name.
        layout: where the files go.
        key: signs what is made here.
        words: files for people, by name.
    """
    contents = {f"{RUN}{name}": data for name, data in run_files.items()}
    contents |= {f"words/{name}": data for name, data in words.items()}
    contents |= _made(account, key)
    contents |= _signed(account, contents, key)
    placed = {_place(layout, name): data for name, data in contents.items()}
    created_at = instant(int(str(account.end["time"])))
    if layout is Layout.NUMBERED:
        return dict(manifest.numbered_pack(placed, account.run, created_at, [_EXTENSION], key))
    return manifest.spec_pack(placed, account.run, created_at, artefacts.policy_epoch(account), key)


def verify(files: Mapping[str, bytes], key: PublicKey) -> dict[str, bytes]:
    """Return the run's own files out of a pack in which everything else holds; those are for `verify_run`.

    Raises:
        VerificationError: names the file that is not what was signed.
    """
    inner = manifest.check_pack(files, key)
    layout = Layout.NUMBERED if manifest.INDEX in files else Layout.SPEC
    contents = {_name(layout, path): data for path, data in inner.items()}
    try:
        _check_chains(contents, key)
        _check_boundary(contents)
        _check_graph(contents, key)
        _check_statement(contents, key)
    except (KeyError, ValueError, TypeError) as error:
        raise VerificationError(f"the pack is not whole: {error}") from error
    return {name.removeprefix(RUN): data for name, data in contents.items() if name.startswith(RUN)}


def _made(account: Account, key: SigningKey) -> dict[str, bytes]:
    grant = artefacts.sandbox_grant(account)
    chain = artefacts.receipts(account, key)
    records = artefacts.boundary_records(account, grant)
    made: dict[str, Json] = {
        _GRANT: grant,
        _RECORDS: list(records),
        _CHECKPOINT: boundary.checkpoint(records, 1, instant(int(str(account.end["time"])))),
        _GRAPH: {"nodes": list(artefacts.proof_graph(account, chain, key))},
        "score/01_SCORE.json": {"run": account.run, "acts": len(records), "denied": _denied(account)},
        **{f"receipts/{number:06d}.json": receipt for number, receipt in enumerate(chain, 1)},
    }
    for name, host in (
        (_NETWORK, artefacts.network_chain(account, key)),
        (_ACTIONS, artefacts.action_chain(account, key)),
    ):
        if host:
            made[name] = host
    return {name: dumps(value) for name, value in made.items()}


def _signed(account: Account, contents: Mapping[str, bytes], key: SigningKey) -> dict[str, bytes]:
    """Return the envelopes over everything else: what HELM exports with an empty list of signatures."""
    created_at = instant(int(str(account.end["time"])))
    claim = statement.in_toto(
        contents, {"run": account.run, "counts": account.end.get("counts"), "start": account.start}
    )
    native = "sha256:" + str(account.end["hash"])
    root: Fields = {"root": native, "subject": account.run, "records": int(str(account.end["seq"])) + 1}
    envelopes: list[Json] = [
        statement.envelope_manifest(f"{account.run}-in-toto", "in-toto", native, account.run, claim, created_at),
        statement.envelope_manifest(f"{account.run}-dsse", "dsse", native, account.run, root, created_at),
    ]
    return {
        _STATEMENT: statement.sign(statement.IN_TOTO, claim, key),
        _ROOT: statement.sign(statement.EVIDENCE_ROOT, root, key),
        _ENVELOPES: dumps(envelopes),
    }


def _check_chains(contents: Mapping[str, bytes], key: PublicKey) -> None:
    chain = [_fields(loads(contents[name])) for name in sorted(contents) if name.startswith("receipts/")]
    receipt_v5.verify_chain(chain, [key])
    for name in (_NETWORK, _ACTIONS):
        if name in contents:
            host_chain.verify(contents[name], key)


def _check_boundary(contents: Mapping[str, bytes]) -> None:
    grant, checkpoint = _fields(loads(contents[_GRANT])), _fields(loads(contents[_CHECKPOINT]))
    records = [_fields(record) for record in _list(loads(contents[_RECORDS]))]
    if not boundary.intact(grant, "grant_hash"):
        raise ValueError(f"{_GRANT}: its hash is not that of its contents")
    for record in records:
        if not boundary.intact(record, "record_hash") or record["sandbox_grant_hash"] != grant["grant_hash"]:
            raise ValueError(f"{_RECORDS}: record `{record.get('record_id')}` is not what was hashed")
    if boundary.checkpoint(records, 1, str(checkpoint["created_at"])) != checkpoint:
        raise ValueError(f"{_CHECKPOINT}: it is not about these records")


def _check_graph(contents: Mapping[str, bytes], key: PublicKey) -> None:
    known: set[Json] = set()
    for number, value in enumerate(_list(_fields(loads(contents[_GRAPH]))["nodes"]), 1):
        node = _fields(value)
        if boundary.node_hash(node) != node["node_hash"] or not boundary.authored(node, key):
            raise ValueError(f"{_GRAPH}: node {number} is not what was signed")
        if not known.issuperset(_list(node["parents"] or [])) or node["lamport"] != number:
            raise ValueError(f"{_GRAPH}: node {number} does not follow the ones before")
        known.add(node["node_hash"])


def _check_statement(contents: Mapping[str, bytes], key: PublicKey) -> None:
    claim = statement.opened(contents[_STATEMENT], statement.IN_TOTO, key)
    statement.opened(contents[_ROOT], statement.EVIDENCE_ROOT, key)
    stated = {str(_fields(subject)["name"]): _fields(subject)["digest"] for subject in _list(claim["subject"])}
    found = {name: {"sha256": digest(data)} for name, data in contents.items() if not name.startswith("signed/")}
    if stated != found:
        name = next(name for name in sorted({*stated, *found}) if stated.get(name) != found.get(name))
        raise ValueError(f"{_STATEMENT}: `{name}` is not the file that was signed for")


def _denied(account: Account) -> int:
    return sum(act.count for act in account.acts if act.code)


def _place(layout: Layout, name: str) -> str:
    before, after = next(item for item in _PLACES[layout].items() if name.startswith(item[0]))
    return after + name.removeprefix(before)


def _name(layout: Layout, path: str) -> str:
    """Return what a path was placed for; the longest place that fits is the one."""
    fitting = [(len(after), before, after) for before, after in _PLACES[layout].items() if path.startswith(after)]
    for _, before, after in sorted(fitting, reverse=True):
        return before + path.removeprefix(after)
    raise VerificationError(f"{path}: no file of a pack of this kind")


def _fields(value: Json) -> Fields:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value
