"""HELM AI Kernel's golden pairs: artefacts its own code accepts or computed, byte for byte."""

import base64
import json
from pathlib import Path

import pytest

from helm_sentry.audit.canonical import dumps
from helm_sentry.errors import VerificationError
from helm_sentry.evidence import boundary, host_chain, manifest, receipt_v5
from helm_sentry.evidence.serial import digest
from helm_sentry.receipt.keys import SigningKey

GOLDEN = Path(__file__).resolve().parents[2] / "golden/helm"
KEY = SigningKey(bytes([0x11] * 32))
PAIRS = {pair["id"]: pair for pair in json.loads((GOLDEN / "interop_vectors.json").read_text())}
SELF_HASHED = {
    "boundary_record_deny": "record_hash",
    "boundary_record_allow_minimal": "record_hash",
    "boundary_checkpoint": "checkpoint_hash",
    "sandbox_grant": "grant_hash",
    "authz_snapshot": "snapshot_hash",
    "envelope_manifest": "manifest_hash",
}
FILES = ["chain.json", "chain.jsonl", "chain_action.json"]


def wire(name):
    return dict(PAIRS[name]["wire"])


def test_the_key_is_the_one_that_signed_them():
    assert KEY.public.data.hex() == (GOLDEN / "pub.hex").read_text().strip()


def test_every_pair_is_used():
    others = {"sandbox_grant_empty_limits", "mcp_tool_schema_pin", "evidencepack_manifest"}
    others |= {"evidencepack_entries_merkle_root", "proofgraph_genesis", "proofgraph_second", "proofgraph_signed"}
    assert set(PAIRS) == set(SELF_HASHED) | others


@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if pair["preimage"]])
def test_preimages_are_canonical_and_hash_as_stated(name):
    pair = PAIRS[name]
    value = json.loads(pair["preimage"])
    assert dumps(value).decode() == pair["preimage"]
    assert digest(value) == pair["hash"]


@pytest.mark.parametrize("name", SELF_HASHED)
def test_artefacts_that_hash_themselves(name):
    member = SELF_HASHED[name]
    assert boundary.intact(wire(name), member)
    assert not boundary.intact(wire(name) | {"created_at": "2026-11-20T10:00:09Z"}, member)


def test_builders_give_the_golden_artefacts():
    for name in ("boundary_record_deny", "boundary_record_allow_minimal"):
        assert boundary.record(wire(name) | {"record_hash": ""}) == wire(name)
    records = [wire("boundary_record_allow_minimal"), wire("boundary_record_deny")]
    assert boundary.checkpoint(records, 1, "2026-11-20T10:00:02Z") == wire("boundary_checkpoint")
    assert boundary.grant(wire("sandbox_grant") | {"grant_hash": ""}) == wire("sandbox_grant")


def test_a_grant_without_limits_keeps_the_empty_member():
    grant = {name: value for name, value in wire("sandbox_grant").items() if name not in ("grant_hash", "limits")}
    assert boundary.grant(grant)["grant_hash"] == PAIRS["sandbox_grant_empty_limits"]["hash"]


@pytest.mark.parametrize(
    "fields", [{}, {"record_id": "r", "verdict": "DENY", "policy_epoch": "e", "created_at": "t"}], ids=["empty", "code"]
)
def test_a_boundary_record_without_what_it_needs_is_refused(fields):
    with pytest.raises(ValueError, match="needs"):
        boundary.record(fields)


@pytest.mark.parametrize("name", ["proofgraph_genesis", "proofgraph_second", "proofgraph_signed"])
def test_graph_nodes(name):
    assert boundary.node_hash(wire(name)) == PAIRS[name]["hash"]
    assert boundary.node_hash(wire(name) | {"ts_unix_ms": 1}) == PAIRS[name]["hash"]
    assert boundary.node_hash(wire(name) | {"lamport": 9}) != PAIRS[name]["hash"]


def test_a_node_is_built_like_the_golden_ones_and_signed():
    built = boundary.node("INTENT", [], 1, "agent-1", 0, {"b": 1, "a": "x"})
    assert built["node_hash"] == PAIRS["proofgraph_genesis"]["hash"]
    signed = boundary.node("EFFECT", [built["node_hash"]], 2, "agent-1", 1, {"ok": True}, KEY)
    assert boundary.authored(signed, KEY.public)
    assert not boundary.authored(signed | {"payload": {"ok": False}}, KEY.public)
    assert not boundary.authored(signed, SigningKey(bytes(32)).public)


def test_the_pack_manifest():
    fields = wire("evidencepack_manifest")
    assert manifest.manifest_hash(fields) == PAIRS["evidencepack_manifest"]["hash"]
    assert f"sha256:{manifest.entries_root(fields['entries'])}" == PAIRS["evidencepack_entries_merkle_root"]["hash"]
    fields["entries"] = fields["entries"][:-1]
    assert manifest.manifest_hash(fields) != PAIRS["evidencepack_manifest"]["hash"]


@pytest.mark.parametrize("name", FILES)
def test_host_chains_verify(name):
    chain = host_chain.verify((GOLDEN / name).read_bytes(), KEY.public)
    stated = json.loads((GOLDEN / name.replace("jsonl", "json")).read_text())
    assert chain.chain_hash == stated["receipt_chain_hash"]
    assert [receipt["receipt_hash"] for receipt in chain.receipts] == [r["receipt_hash"] for r in stated["receipts"]]


@pytest.mark.parametrize("name", ["chain.json", "chain_action.json"])
def test_host_chains_are_written_byte_for_byte(name):
    golden = json.loads((GOLDEN / name).read_text())
    own = ("receipt_hash", "prev_receipt_hash", "signature")
    receipts = [{k: v for k, v in receipt.items() if k not in own} for receipt in golden["receipts"]]
    built = host_chain.build(golden["chain_id"], golden["created_at"], receipts, KEY)
    built["public_keys"][0]["key_id"] = "sentry-host-key-1"  # theirs has a name; ours is named by what it is
    assert dumps(built) == dumps(golden)


def test_the_worked_preimage():
    receipt = json.loads((GOLDEN / "chain.json").read_text())["receipts"][0]
    text = dumps(host_chain.preimage(receipt)).decode()
    assert text.startswith('{"event":{"bytes_received":128,"bytes_sent":512,"destination_ip":"203.0.113.10",')
    assert '"receipt_hash":"","receipt_id":"sentry-000001","recorded_at":"2026-11-20T10:00:00.25Z"' in text
    assert 'signature"' not in text


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("another key", None, "signature"),
        ("a flipped verdict", lambda c: c["receipts"][1]["event"].update(verdict="ALLOWED"), "receipt 2.*hash"),
        ("more bytes", lambda c: c["receipts"][0]["event"].update(bytes_sent=513), "receipt 1.*hash"),
        ("the middle removed", lambda c: c["receipts"].pop(1), "receipt 2.*follow"),
        ("two swapped", lambda c: c["receipts"].reverse(), "follow"),
        ("the tail cut", lambda c: c["receipts"].pop(), "receipt_chain_hash"),
        ("a signature flipped", lambda c: c["receipts"][0].update(signature="00" * 64), "receipt 1.*signature"),
        ("a hardware root", lambda c: c["receipts"][0].update(hardware_root={"hardware_root_type": "tpm"}), "hardware"),
        ("no receipts", lambda c: c.update(receipts=[]), "no receipts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_changed_in_a_chain_is_found(name, change, why):
    chain = json.loads((GOLDEN / "chain.json").read_text())
    host_chain.verify(json.dumps(chain).encode(), KEY.public)
    if change:
        change(chain)
    key = KEY.public if change else SigningKey(bytes(32)).public
    with pytest.raises(VerificationError, match=why):
        host_chain.verify(json.dumps(chain).encode(), key)


def literal_receipt(change):
    """A receipt of an emitter that hashes the JSON it writes, not what HELM would print again."""
    receipt = json.loads((GOLDEN / "chain.json").read_text())["receipts"][0]
    for name in ("receipt_hash", "signature"):
        del receipt[name]
    change(receipt)
    unsigned = {**receipt, "receipt_hash": ""}
    receipt["receipt_hash"] = digest(unsigned)
    receipt["signature"] = KEY.sign(dumps(unsigned | {"receipt_hash": receipt["receipt_hash"]})).hex()
    return receipt


def no_change(receipt):
    pass


TRAPS = {
    "no recorded_at": lambda r: r.pop("recorded_at"),
    "a member of its own": lambda r: r.update(pid=4),
    "zero bytes spelled out": lambda r: r["event"].update(bytes_sent=0),
    "an empty optional": lambda r: r.update(agent_id=""),
    "zeros at the end of a fraction": lambda r: r.update(recorded_at="2026-11-20T10:00:00.250000Z"),
    "an offset for UTC": lambda r: r.update(recorded_at="2026-11-20T10:00:00.25+00:00"),
    "vendor at the chain only": lambda r: r.pop("source_vendor"),
    "schema at the chain only": lambda r: r.pop("schema_version"),
    "a hardware root": lambda r: r.update(hardware_root={"hardware_root_type": "tpm"}),
    "an action without the zero event": lambda r: (
        r.pop("event"),
        r.update(
            event_kind="action_effect",
            action_event={"action_id": "a", "tool_name": "t", "timestamp": "2026-11-20T10:00:03Z"},
        ),
    ),
}


def test_the_control_for_the_traps():
    host_chain.verify(json.dumps([literal_receipt(no_change)]).encode(), KEY.public)


@pytest.mark.parametrize("name", TRAPS)
def test_the_traps_fail(name):
    receipt = literal_receipt(TRAPS[name])
    chain = {"schema_version": "external_receipt_chain.v1", "source_vendor": "helm-sentry", "receipts": [receipt]}
    chain["receipt_chain_hash"] = host_chain.chain_hash([receipt["receipt_hash"]])
    with pytest.raises(VerificationError, match="hash|hardware"):
        host_chain.verify(json.dumps(chain).encode(), KEY.public)


@pytest.mark.parametrize("name", [name for name in TRAPS if "hardware" not in name])
def test_the_same_contents_hashed_our_way_verify(name):
    receipt = json.loads((GOLDEN / "chain.json").read_text())["receipts"][0]
    for member in ("receipt_hash", "signature"):
        del receipt[member]
    TRAPS[name](receipt)
    built = host_chain.build("c", "2026-11-20T10:00:05Z", [receipt], KEY)
    host_chain.verify(dumps(built), KEY.public)


def test_a_signature_may_be_base64():
    receipt = literal_receipt(no_change)
    signature = bytes.fromhex(receipt["signature"])
    receipt["signature"] = base64.b64encode(signature).decode()
    host_chain.verify(json.dumps(receipt).encode(), KEY.public)
    for wrong in (base64.b64encode(signature[::-1]).decode(), "", "x", base64.b64encode(signature[:63]).decode()):
        with pytest.raises(VerificationError, match="signature"):
            host_chain.verify(json.dumps(receipt | {"signature": wrong}).encode(), KEY.public)


def test_special_characters_are_hashed_as_they_are():
    receipt = literal_receipt(lambda r: r.update(metadata={"x": "<>&\u2028\x7f"}))
    host_chain.verify(json.dumps(receipt, ensure_ascii=False).encode(), KEY.public)


@pytest.mark.parametrize("metadata", [{"x": 1}, {"x": ["y"]}, "text"], ids=str)
def test_metadata_holds_text_only(metadata):
    with pytest.raises(ValueError, match="wrong type"):
        host_chain.preimage(literal_receipt(no_change) | {"metadata": metadata})


def test_a_line_too_long_for_helm_is_refused():
    lines = [literal_receipt(lambda r: r.update(metadata={"x": "y" * 70_000})), literal_receipt(no_change)]
    with pytest.raises(VerificationError, match="65536"):
        host_chain.verify("\n".join(map(json.dumps, lines)).encode(), KEY.public)


class TestReceiptV5:
    @pytest.fixture
    def chain(self):
        return json.loads((GOLDEN / "v5chain.json").read_text())["receipts"]

    def test_the_golden_chain_verifies(self, chain):
        receipt_v5.verify_chain(chain, [KEY.public])
        assert receipt_v5.chain_hash(chain[0]) == "03830690132a7b0da4e7f6b6f3d0f07cd10a7895ad8c5d87467a5be416a03e0e"

    def test_the_golden_chain_is_written_byte_for_byte(self, chain):
        own = {*receipt_v5.SIGNED, "signature", "status"} - {"receipt_id", "decision_id", "effect_id", "args_hash"}
        own -= {"verdict", "reason_code"}
        rest = [{k: v for k, v in receipt.items() if k not in own} for receipt in chain]
        assert dumps(receipt_v5.build(rest, "sess-1", str(chain[0]["policy_hash"]), KEY)) == dumps(chain)

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda c: c[1].update(verdict="ALLOW"), "signature_rejected"),
            (lambda c: c[1].update(signature="00" * 64), "signature_rejected"),
            (lambda c: c[1].update(lamport_clock=2**53), "non_interoperable_number"),
            (lambda c: c[1].pop("args_hash"), "contract_mismatch"),
            (lambda c: c[1].update(signature_version="receipt.v4"), "contract_mismatch"),
            (lambda c: c[1].update(signature_algorithm="rsa"), "contract_mismatch"),
            (lambda c: c[0].update(timestamp="2026-11-20T10:00:09Z"), "closure"),
            (lambda c: c.pop(1), "closure"),
            (lambda c: c.pop(0), "closure"),
            (lambda c: c.reverse(), "closure"),
        ],
    )
    def test_what_was_changed_is_found(self, chain, change, why):
        change(chain)
        with pytest.raises(VerificationError, match=why):
            receipt_v5.verify_chain(chain, [KEY.public])

    def test_a_key_inside_is_no_key(self, chain):
        with pytest.raises(VerificationError, match="signature_rejected"):
            receipt_v5.verify_chain(chain, [SigningKey(bytes(32)).public])
        with pytest.raises(VerificationError, match="signature_rejected"):
            receipt_v5.verify_chain(chain, [])
