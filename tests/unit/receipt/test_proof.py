"""Receipts for single records: verifiable alone, and only as they were made."""

import copy
import json
import shutil

import pytest
from click.testing import CliRunner
from receipt_runs import KEY, OTHER_KEY, RUN, begin, decision

from helm_sentry.audit import record
from helm_sentry.cli.receipt import receipt
from helm_sentry.decision import Verdict
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.evidence import statement as statements
from helm_sentry.receipt.alone import open_receipt
from helm_sentry.receipt.proof import verify_record
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, LOG, TREE
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.stored_tree import StoredTree, _some
from helm_sentry.receipt.verify import verify_run

COUNT = 2600


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """2,600 decisions in three segments, with checkpoints in between."""
    directory = tmp_path_factory.mktemp("proofs")
    log = begin(str(directory))
    signer = Signer(str(directory), KEY)
    for number in range(COUNT):
        log.append(decision(Verdict.DENY if number % 1000 == 7 else Verdict.ALLOW))
        if number in (900, 1900):
            log.rotate(above=0)
    log.append(record.end(log.counts, exit_status=0))
    signer.seal(log.totals)
    log.close()
    assert verify_run(read_run(str(directory)), [KEY.public]).records == COUNT + 2
    return directory


@pytest.fixture
def statement(run):
    return StoredTree(str(run)).receipt(1234)


class TestRecordReceipt:
    @pytest.mark.parametrize("sequence", [0, 1, 255, 256, 901, 902, 1023, 1024, 1901, 2559, 2560, COUNT, COUNT + 1])
    def test_of_any_record(self, run, sequence):
        found = StoredTree(str(run)).receipt(sequence)
        assert found["record"]["seq"] == sequence
        checkpoint = verify_record(json.loads(json.dumps(found)), KEY.public)
        assert (checkpoint.run, checkpoint.size) == (RUN, COUNT + 2)

    @pytest.mark.parametrize("sequence", [-1, COUNT + 2])
    def test_of_a_record_that_is_not_there(self, run, sequence):
        with pytest.raises(UsageError, match=f"a checkpoint covers 0 to {COUNT + 1}"):
            StoredTree(str(run)).receipt(sequence)

    def test_by_another_key(self, statement):
        with pytest.raises(VerificationError, match="another key"):
            verify_record(statement, OTHER_KEY.public)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda s: s["record"].update(verdict="DENY"), id="verdict"),
            pytest.param(lambda s: s["record"].update(time=1), id="time"),
            pytest.param(lambda s: s.update(seq=1235), id="place"),
            pytest.param(lambda s: s.update(run="20261121-071504-000000"), id="run"),
            pytest.param(lambda s: s.update(policy_digest="0" * 64), id="policy"),
            pytest.param(lambda s: s["start"].update(policy_digest="0" * 64), id="start record"),
            pytest.param(lambda s: s["proof"].pop(), id="shorter proof"),
            pytest.param(lambda s: s["proof"].append("0" * 64), id="longer proof"),
            pytest.param(lambda s: s["proof"].__setitem__(0, "zz"), id="no hash"),
            pytest.param(lambda s: s.update(start_proof=s["proof"]), id="proof of another"),
            pytest.param(lambda s: s.update(checkpoint=s["checkpoint"].replace("2602", "2601")), id="checkpoint"),
            pytest.param(lambda s: s.update(kind="decision"), id="kind"),
            pytest.param(lambda s: s.update(record=s["start"], seq=0, start=s["record"]), id="exchanged"),
            pytest.param(lambda s: s.update(record=1.5), id="no record"),
        ],
    )
    def test_nothing_can_be_changed(self, statement, change):
        changed = copy.deepcopy(statement)
        change(changed)
        with pytest.raises(VerificationError):
            verify_record(changed, KEY.public)

    @pytest.mark.parametrize("name", [LOG + ".gz", "audit.000001.jsonl.gz", TREE, CHECKPOINTS])
    def test_damaged_files_give_no_receipt(self, run, tmp_path, name):
        for path in run.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        StoredTree(str(tmp_path)).receipt(1234)
        changed = bytearray((run / name).read_bytes())
        changed[len(changed) // 2] ^= 1
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(VerificationError):
            # One of these reads the damaged place, whichever file it is in.
            for sequence in range(0, COUNT, 250):
                StoredTree(str(tmp_path)).receipt(sequence)


class TestConsistency:
    def test_of_every_two_checkpoints(self, run):
        tree = StoredTree(str(run))
        sizes = [found.size for _, found in tree.checkpoints]
        assert len(sizes) >= 3
        for old in sizes:
            for new in sizes:
                if old <= new:
                    found = open_receipt(json.dumps(tree.consistency(old, new)).encode(), [KEY.public], pinned=True)
                    assert (found["old"], found["new"]) == (old, new)

    def test_of_checkpoints_that_are_not_there(self, run):
        with pytest.raises(UsageError, match="there are no checkpoints of 5 and then"):
            StoredTree(str(run)).consistency(5)

    def test_not_all_of_many_checkpoints_are_named(self):
        assert _some([]) == "none"
        assert _some([3, 9]) == "3, 9"
        assert _some(list(range(1, 101))).endswith("11, 12 … 100, 100 in all")

    def test_a_changed_proof(self, run):
        found = StoredTree(str(run)).consistency()
        found["proof"][0] = "0" * 64
        with pytest.raises(VerificationError, match="does not begin with"):
            open_receipt(json.dumps(found).encode(), [KEY.public], pinned=True)


class TestCommand:
    @pytest.fixture
    def call(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        return lambda *arguments: CliRunner().invoke(receipt, arguments)

    def test_show_and_verify(self, call, run, tmp_path):
        (tmp_path / "r").write_text(call("show", str(run), "1234").output)
        assert call("verify", "r").output == (
            f"ok: record 1234 is in the log of run {RUN} ({COUNT + 2} records); "
            f"signed by key {KEY.public.id} (not pinned: pass --public-key to pin)\n"
        )
        assert call("verify", "r", "--public-key", KEY.public.data.hex()).output.endswith("(trusted)\n")
        assert isinstance(call("verify", "r", "--public-key", OTHER_KEY.public.data.hex()).exception, VerificationError)
        assert json.loads(call("verify", "r", "--json").output)["trusted"] is False

    def test_in_an_envelope(self, call, run, tmp_path):
        envelope = call("show", str(run), "1234", "--sign").output
        (tmp_path / "r").write_text(envelope)
        assert call("verify", "r").output.startswith("ok: record 1234")
        (tmp_path / "r").write_text(envelope.replace('"payload":"e', '"payload":"f'))
        assert isinstance(call("verify", "r").exception, VerificationError)

    def test_of_the_run_and_of_a_denial(self, call, run, tmp_path):
        key = ("--public-key", KEY.public.data.hex())
        (tmp_path / "run").write_text(call("show", str(run)).output)
        (tmp_path / "denial").write_bytes((run / DENIALS).read_bytes().splitlines()[0])
        assert call("verify", "run", *key).output == f"ok: receipt of run {RUN}; signer trusted\n"
        assert call("verify", "denial", *key).output == f"ok: receipt of a decision of run {RUN}; signer trusted\n"
        assert isinstance(call("verify", "denial").exception, UsageError)

    def test_of_the_latest_run(self, call, run, tmp_path):
        assert isinstance(call("show", "7").exception, UsageError)
        runs = tmp_path / "helm-sentry/runs"
        runs.mkdir(parents=True)
        shutil.copytree(run, runs / RUN)
        assert json.loads(call("show", "7").output)["record"]["seq"] == 7
        assert json.loads(call("show", "latest", "7").output)["record"]["seq"] == 7
        assert json.loads(call("show").output) == json.loads((run / "receipts/run.json").read_bytes())
        assert json.loads(call("consistency").output)["kind"] == "consistency"

    def test_of_consistency_by_any_trusted_key(self, call, run, tmp_path):
        (tmp_path / "r").write_text(call("consistency", str(run)).output)
        keys = ("--public-key", OTHER_KEY.public.data.hex(), "--public-key", KEY.public.data.hex())
        for order in (keys, keys[2:] + keys[:2]):
            assert "grew from" in call("verify", "r", *order).output
        assert isinstance(call("verify", "r", *keys[:2]).exception, VerificationError)
        assert isinstance(call("verify", "r").exception, UsageError)

    def test_of_all_denials_at_once(self, call, run):
        key = ("--public-key", KEY.public.data.hex())
        receipts = (run / DENIALS).read_bytes().splitlines()
        output = call("verify", str(run / DENIALS), *key).output
        assert output == f"ok: receipt of a decision of run {RUN}; signer trusted\n" * len(receipts)

    @pytest.mark.parametrize(
        ("kind", "payload", "words"),
        [
            (statements.DRIFT, {"status": "VOLUME_EXCEEDED", "target": "a:1/tcp"}, "drift: VOLUME_EXCEEDED a:1/tcp"),
            (statements.CONFORMANCE, {"vector": "v", "verdict": "DENY", "reason_code": "C"}, "conformance: v DENY C"),
            (statements.IN_TOTO, {"subject": [{}, {}]}, "in-toto statement about 2 files"),
            (statements.EVIDENCE_ROOT, {"root": "sha256:0", "subject": "r"}, "evidence root sha256:0 of run r"),
        ],
    )
    def test_of_other_signed_statements(self, call, tmp_path, kind, payload, words):
        (tmp_path / "r").write_bytes(statements.sign(kind, payload, KEY) + b"\n")
        found = call("verify", "r", "--public-key", KEY.public.data.hex())
        assert (found.exit_code, words in found.output) == (0, True), found.output
        wrong = call("verify", "r", "--public-key", OTHER_KEY.public.data.hex())
        assert isinstance(wrong.exception, VerificationError)
        (tmp_path / "r").write_bytes(statements.sign("text/plain", payload, KEY))
        assert isinstance(call("verify", "r", "--public-key", KEY.public.data.hex()).exception, VerificationError)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"payloadType":1}', '{"kind":"record"}'])
    def test_what_is_no_receipt(self, call, tmp_path, text):
        (tmp_path / "r").write_text(text)
        found = call("verify", "r", "--public-key", KEY.public.data.hex()).exception
        assert isinstance(found, VerificationError)
