"""Our packs by HELM's rules for packs, checked with nothing of ours but the pack: a reader of their documents' own verifier.

The rules are those of `evidence-pack-v1` and of the numbered layout (docs/helm-interoperability.md), in the order in which
HELM's verifier goes through them. Signatures are checked by plain Python.
"""

import hashlib
import io
import json
import posixpath
import tarfile

import pytest

from helm_sentry.audit import record
from helm_sentry.decision import Verdict
from helm_sentry.evidence import pack
from helm_sentry.evidence.folder import archive
from helm_sentry.operation import Kind
from helm_sentry.standalone.ed25519 import plain_verify
from tests.unit.evidence.test_pack import FILES, KEY, decided, of

SPEC_FOLDERS = {"receipts", "policy", "transcripts", "network", "host_evidence", "diffs", "secrets", "ports", "replay"}
NUMBERED = {"01_SCORE.json", "02_PROOFGRAPH", "03_TELEMETRY", "04_EXPORTS", "05_DIFFS", "06_LOGS", "07_ATTESTATIONS"}
NUMBERED |= {"08_TAPES", "09_SCHEMAS", "11_HOST_EVIDENCE", "12_REPORTS", "99_EXT"}
DROPPED_WHEN_EMPTY = ("output_hash", "args_hash", "verdict", "reason_code", "policy_hash", "session_id")
SIGNED = ("signature_version", "receipt_id", "decision_id", "effect_id", "status", "output_hash", "prev_hash")
SIGNED += ("lamport_clock", "args_hash", "verdict", "reason_code", "policy_hash", "session_id")
ALWAYS = ("receipt_id", "decision_id", "effect_id", "external_reference_id", "status", "timestamp", "prev_hash")
ALWAYS += ("lamport_clock", "created_at", "installed_at", "issued_at")
ZERO_TIME = "0001-01-01T00:00:00Z"


def jcs(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def signed(message, signature, key=KEY.public.data):
    return plain_verify(key, message, bytes.fromhex(signature))


def root(leaves):
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level += level[-1:] * (len(level) % 2)
        level = [hashlib.sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level), 2)]
    return level[0].hex()


@pytest.fixture(scope="module")
def account():
    return of(
        decided(Kind.FILE_WRITE, "/w/x"),
        decided(Kind.FILE_READ, "/secret", Verdict.DENY, "errno", errno="EACCES"),
        decided(Kind.FILE_CREATE, "/w/y"),
        record.end({}, exit_status=0),
    )


@pytest.fixture(scope="module", params=list(pack.Layout), ids=str)
def packed(request, account):
    return request.param, pack.build(account, FILES, request.param, KEY, {"README.md": b"words"})


@pytest.fixture(scope="module")
def numbered(account):
    return pack.build(account, FILES, pack.Layout.NUMBERED, KEY, {"README.md": b"words"})


@pytest.fixture(scope="module")
def spec(account):
    return pack.build(account, FILES, pack.Layout.SPEC, KEY, {"README.md": b"words"})


def receipts(files):
    return [
        json.loads(files[name]) for name in sorted(files) if "/receipts/" in f"/{name}" and "/run/" not in f"/{name}"
    ]


class TestNumbered:
    def test_structure(self, numbered):
        index = json.loads(numbered["00_INDEX.json"])
        tops = {path.partition("/")[0] for path in numbered} - {"00_INDEX.json"}
        assert tops <= NUMBERED
        assert "01_SCORE.json" in numbered and "02_PROOFGRAPH/proofgraph.json" in numbered
        extensions = {path.split("/")[1] for path in numbered if path.startswith("99_EXT/")}
        assert extensions <= set(index["extensions"]), "an extension that is not declared"
        assert all(posixpath.normpath(path) == path and not path.startswith(("/", "..")) for path in numbered)

    def test_index_integrity(self, numbered):
        index = json.loads(numbered["00_INDEX.json"])
        listed = {entry["path"]: entry["sha256"] for entry in index["entries"]}
        rest = {path: sha(data) for path, data in numbered.items()}
        rest.pop("00_INDEX.json"), rest.pop("07_ATTESTATIONS/evidence_pack.sig")
        assert listed == rest
        assert set(index) >= {"version", "entries", "gates", "extensions"}
        assert "G2" not in index["gates"]  # or a replay would have to be there

    def test_seal(self, numbered):
        seal = json.loads(numbered["07_ATTESTATIONS/evidence_pack.sig"])
        index = json.loads(numbered["00_INDEX.json"])
        assert seal["version"] == "evidence-pack-seal/v1"
        assert seal["index_hash"] == sha(numbered["00_INDEX.json"])
        entries = sorted(index["entries"], key=lambda entry: entry["path"])
        assert seal["merkle_root"] == root(bytes.fromhex(entry["sha256"]) for entry in entries)
        assert seal["entry_count"] == len(entries)
        assert seal["signer"]["algorithm"] == "ed25519"
        preimage = {name: value for name, value in seal.items() if name != "signature"}
        preimage["signer"] = {name: value for name, value in seal["signer"].items() if name != "public_key"}
        assert signed(jcs(preimage), seal["signature"])
        assert {"profile", "anchor", "anchor_receipts", "storage", "signed_at", "pack_id"} <= set(seal)


class TestSpec:
    def test_manifest(self, spec):
        manifest = json.loads(spec["manifest.json"])
        assert manifest["version"] == "1.0.0"
        assert {"pack_id", "created_at", "actor_did", "intent_id", "policy_hash"} <= set(manifest)
        entries = sorted(manifest["entries"], key=lambda entry: entry["path"])
        assert all(set(entry) == {"path", "content_hash", "size", "content_type"} for entry in entries)
        body = {name: value for name, value in manifest.items() if name not in ("manifest_hash", "entries_merkle_root")}
        assert manifest["manifest_hash"] == "sha256:" + sha(jcs(body | {"entries": entries}))
        assert manifest["entries_merkle_root"] == "sha256:" + root(map(jcs, entries))
        covered = {entry["path"]: (entry["content_hash"], entry["size"]) for entry in entries}
        rest = {path: ("sha256:" + sha(data), len(data)) for path, data in spec.items()}
        rest.pop("manifest.json"), rest.pop("signatures/manifest.json")
        assert covered == rest

    def test_signature_is_over_the_text_of_the_hash(self, spec):
        signature = json.loads(spec["signatures/manifest.json"])
        assert signed(json.loads(spec["manifest.json"])["manifest_hash"].encode(), signature["signature"])

    def test_folders(self, spec):
        assert {path.partition("/")[0] for path in spec} - {"manifest.json", "signatures"} <= SPEC_FOLDERS

    def test_archive(self, spec):
        with tarfile.open(fileobj=io.BytesIO(archive(spec))) as tar:
            members = tar.getmembers()
        assert [member.name for member in members] == sorted(spec)
        assert {(m.mtime, m.uid, m.gid, m.mode, m.type) for m in members} == {(0, 0, 0, 0o644, tarfile.REGTYPE)}


class TestReceipts:
    """What HELM's verifier asks of the receipts in either layout."""

    def test_chain_integrity(self, packed):
        chain = receipts(packed[1])
        assert len(chain) >= 3
        assert chain[0]["prev_hash"] == ""
        for before, receipt in zip(chain, chain[1:], strict=False):
            assert receipt["prev_hash"] == sha(jcs(as_go_sees_it(before)))

    def test_lamport_monotonicity(self, packed):
        chain = receipts(packed[1])
        assert [receipt["lamport_clock"] for receipt in chain] == list(range(1, len(chain) + 1))
        assert len({receipt["session_id"] for receipt in chain}) == 1

    def test_policy_decision_hashes(self, packed):
        assert any(receipt.get("decision_hash") for receipt in receipts(packed[1]))

    def test_embedded_signature_trust(self, packed):
        for receipt in receipts(packed[1]):
            assert receipt["signature_version"] == "receipt.v5"
            assert (receipt.get("signature_profile"), receipt.get("signature_algorithm")) == ("classical", "ed25519")
            assert signed(jcs({name: receipt[name] for name in SIGNED}), receipt["signature"])

    def test_verdicts_are_those_of_the_registry(self, packed):
        assert {receipt["verdict"] for receipt in receipts(packed[1])} <= {"ALLOW", "DENY", "ESCALATE"}


def as_go_sees_it(receipt):
    seen = {name: value for name, value in receipt.items() if name not in ("transparency", "log_id", "leaf_index")}
    for name in DROPPED_WHEN_EMPTY:
        if not seen.get(name):
            seen.pop(name, None)
    for name in ALWAYS:
        seen.setdefault(name, ZERO_TIME if name.endswith("_at") or name == "timestamp" else "")
    return seen
