"""The single-file verifier is a second implementation: it must agree with the first one about every run."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from receipt_runs import KEY, OTHER_KEY, begin, contents, decision, sealed_run

from helm_sentry.audit import record
from helm_sentry.decision import Verdict
from helm_sentry.errors import SentryError, VerificationError
from helm_sentry.receipt import verify_alone
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.report import LOG, SEAL
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run

VECTORS = os.path.join(os.path.dirname(__file__), *[os.pardir] * 4, "shared", "vectors", "ed25519.json")
MUTATIONS = int(os.environ.get("HELM_SENTRY_TEST_MUTATIONS", "200"))


VERIFIER = verify_alone.best_verifier()


def alone(directory, *, unsealed=False):
    """The report of the single-file verifier; None where it fails."""
    try:
        found = verify_alone.Run(str(directory), [], VERIFIER).check()
    except (verify_alone.Fault, ValueError) as fault:
        return None, str(fault)
    return (found, "") if unsealed or found["state"] == "sealed" else (None, "unsealed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every kind of file: segments, one compressed, blocks, checkpoints, denials."""
    directory = tmp_path_factory.mktemp("whole")
    log = begin(str(directory))
    signer = Signer(str(directory), KEY)
    for number in range(560):
        log.append(decision(Verdict.DENY if number % 40 == 3 else Verdict.ALLOW))
        if number == 300:
            log.rotate(above=0)
    log.append(record.outcome(5, "EIO"))
    log.append(record.end(log.counts, exit_status=0))
    signer.seal(log.totals)
    log.close()
    return directory


@pytest.fixture
def copy(run, tmp_path):
    for name, data in contents(run).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def mutate(chance, data):
    """A file with one thing changed: a byte, mostly; now and then a piece lost, doubled or moved."""
    changed, at = bytearray(data), chance.randrange(len(data))
    kind = chance.random()
    if kind < 0.8:
        changed[at] ^= 1 << chance.randrange(8)
    elif kind < 0.85:
        del changed[at : at + chance.randint(1, 400)]
    elif kind < 0.9:
        changed[at:at] = changed[at : at + chance.randint(1, 400)]
    elif kind < 0.95:
        changed[at:at] = bytes([chance.randrange(256)])
    else:
        lines = data.splitlines(keepends=True)
        first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[first], lines[second] = lines[second], lines[first]
        changed = bytearray(b"".join(lines))
    return bytes(changed)


def test_no_mutation_is_accepted_and_each_is_named(copy):
    """One change anywhere in any file; both verifiers refuse it and name the file, or one that speaks for it."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance, files = random.Random(seed), contents(copy)
    names, weights = zip(*[(name, len(data) ** 0.5) for name, data in sorted(files.items())], strict=True)
    tried = 0
    for _ in range(MUTATIONS):
        (name,) = chance.choices(names, weights)
        changed = mutate(chance, files[name])
        if changed == files[name]:
            continue
        (copy / name).write_bytes(changed)
        with pytest.raises(VerificationError) as caught:
            verify_run(read_run(str(copy)))
        assert alone(copy)[0] is None, (name, seed)
        stems = {name.removesuffix(".gz"), "receipts/segments.jsonl" if name.endswith(".gz") else name}
        assert any(stem in str(caught.value) for stem in stems) or name in (LOG, "audit.000001.jsonl"), (
            name,
            caught.value,
        )
        (copy / name).write_bytes(files[name])
        tried += 1
    assert tried > MUTATIONS * 0.9
    assert alone(copy)[0]["records"] == verify_run(read_run(str(copy))).records == 563


def test_unsealed_runs_are_judged_alike(copy):
    """Cut, torn and damaged where no seal is: the two agree whether it is acceptable and how much of it is signed."""
    chance = random.Random(7)
    (copy / SEAL).unlink()
    files = contents(copy)
    accepted = 0
    for _ in range(MUTATIONS // 4):
        name = chance.choice([LOG + ".gz", "audit.000001.jsonl", "checkpoints", "tree.jsonl", "receipts/denials.jsonl"])
        at = chance.randrange(len(files[name]))
        data = files[name][:at] if chance.random() < 0.6 else mutate(chance, files[name])
        if chance.random() < 0.3:
            data = files[name][: at - at % 512] + bytes(len(files[name]) - at + at % 512)
        (copy / name).write_bytes(data)
        try:
            report = verify_run(read_run(str(copy)), allow_unsealed=True)
        except VerificationError:
            report = None
        found, fault = alone(copy, unsealed=True)
        assert (report is None) == (found is None), (name, at, fault)
        if report:
            assert (report.records, report.signed, report.torn) == (found["records"], found["signed"], found["torn"])
            accepted += 1
        (copy / name).write_bytes(files[name])
    assert accepted > 5


class TestScript:
    def call(self, *arguments):
        # -I: neither this checkout nor what is installed here is importable by accident.
        command = [sys.executable, "-I", "-S", verify_alone.__file__, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_verifies_by_itself(self, run):
        called = self.call(str(run), "--public-key", KEY.public.data.hex())
        assert (called.returncode, called.stderr) == (0, "note: signatures were checked by this file's own code\n")
        assert called.stdout.startswith("ok: 563 records, 14 receipts; key")
        assert json.loads(self.call(str(run), "--json").stdout)["trusted"] is False

    def test_names_the_place(self, copy):
        log = copy / "audit.000001.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"verdict":"DENY"', b'"verdict":"ALLOW"', 1))
        called = self.call(str(copy))
        assert called.returncode == 121
        assert "audit.000001.jsonl line " in called.stdout
        assert "the record was changed" in called.stdout

    def test_another_key(self, run, tmp_path):
        (tmp_path / "k.pub").write_bytes(OTHER_KEY.public.export())
        called = self.call(str(run), "--public-key", str(tmp_path / "k.pub"))
        assert called.returncode == 121
        assert "not by the one that was named" in called.stdout
        assert self.call(str(run), "--public-key", "x").returncode == 2

    def test_an_unsealed_run(self, copy):
        (copy / SEAL).unlink()
        assert self.call(str(copy)).returncode == 121
        assert self.call(str(copy), "--allow-unsealed").returncode == 0

    def test_imports_the_standard_library_alone(self):
        text = Path(verify_alone.__file__).read_text()
        assert "helm_sentry" not in [
            line.split()[1].split(".")[0] for line in text.splitlines() if line[:5] in ("from ", "impor")
        ]


class TestSignatures:
    CASES = [
        (bytes(range(32)), b"", True),
        (bytes(32), b"message", True),
    ]

    @pytest.mark.parametrize(("seed", "message", "good"), CASES)
    def test_of_ours(self, seed, message, good):
        key = SigningKey(seed)
        signature = key.sign(message)
        for verifier in (verify_alone.python_verify, verify_alone.best_verifier()):
            assert verifier(key.public.data, message, signature) is good
            assert not verifier(key.public.data, message + b"x", signature)
            assert not verifier(key.public.data, message, signature[:-1])
            for bit in range(0, 512, 37):
                changed = (int.from_bytes(signature) ^ 1 << bit).to_bytes(64)
                assert not verifier(key.public.data, message, changed)

    @pytest.mark.skipif(not os.path.exists(VECTORS), reason="no vectors beside the checkout")
    def test_vectors(self):
        with open(VECTORS, encoding="utf-8") as file:
            vectors = json.load(file)
        cases = [(case, True) for case in vectors["rfc8032_7_1"]]
        cases += [(case, case["result"] == "valid") for case in vectors["wycheproof"]]
        for case, good in cases:
            public, message, signature = (bytes.fromhex(case[name]) for name in ("pub", "msg", "sig"))
            assert verify_alone.python_verify(public, message, signature) is good, case

    def test_a_key_of_small_order_signs_nothing(self):
        identity = b"\x01" + bytes(31)
        assert not verify_alone.python_verify(identity, b"anything", identity + bytes(32))


def test_the_two_know_the_same_records():
    assert set(verify_alone.TYPES) == record.TYPES


def test_runs_of_every_size_agree(tmp_path):
    for number, count in enumerate((0, 1, 2, 254, 255, 256, 257)):
        files = sealed_run(tmp_path / str(number), verdicts=[Verdict.ALLOW] * count)
        assert files
        found, fault = alone(tmp_path / str(number))
        assert not fault
        assert found["records"] == count + 2
    with pytest.raises(SentryError):
        verify_run(read_run(str(tmp_path / "absent")))
