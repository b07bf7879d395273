"""The verifier in one file is the package's own modules with two replaced: it must agree about every run."""

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receipt_runs import KEY, RUN, begin, contents, decision, sealed_run

from helm_sentry.audit import canonical, codec, record
from helm_sentry.decision import Verdict
from helm_sentry.errors import VerificationError, printable
from helm_sentry.receipt.check import check_run
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.report import DENIALS, LOG, SEAL
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.stored_tree import StoredTree
from helm_sentry.receipt.verify import verify_run
from helm_sentry.standalone import codec as plain_codec
from helm_sentry.standalone import ed25519
from helm_sentry.standalone.assemble import assemble, modules
from tests.vectors import published

MUTATIONS = int(os.environ.get("HELM_SENTRY_TEST_MUTATIONS", "200"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every kind of file: segments, one compressed, blocks, checkpoints, denials."""
    return whole_run(tmp_path_factory.mktemp("whole"))


def whole_run(directory, run=RUN, policy="p", denied=3):
    log = begin(str(directory), run, policy=policy)
    signer = Signer(str(directory), KEY)
    for number in range(560):
        log.append(decision(Verdict.DENY if number % 40 == denied else Verdict.ALLOW))
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


def test_no_mutation_is_accepted_and_each_is_named(copy, single_file):
    """One change anywhere in any file; both verifiers refuse it and name the file, or one that speaks for it."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance, files = random.Random(seed), contents(copy)
    names, weights = zip(*[(name, len(data) ** 0.5) for name, data in sorted(files.items())], strict=True)
    tried = 0
    while tried < MUTATIONS:
        (name,) = chance.choices(names, weights)
        changed = mutate(chance, files[name])
        if changed == files[name]:
            continue
        (copy / name).write_bytes(changed)
        with pytest.raises(VerificationError) as caught:
            verify_run(read_run(str(copy)))
        status, output = single_file(str(copy))
        assert status == 121, (name, seed)
        stems = {name.removesuffix(".gz"), "receipts/segments.jsonl" if name.endswith(".gz") else name}
        for words in (str(caught.value), output):
            assert any(stem in words for stem in stems) or name in (LOG, "audit.000001.jsonl"), (name, words)
        (copy / name).write_bytes(files[name])
        tried += 1
    print(f"{tried:,} changes, none accepted by either verifier")
    assert verify_run(read_run(str(copy))).records == json.loads(single_file(str(copy), "--json")[1])["records"] == 563


def lines_changed(lines):
    """What can be done to the lines of a file."""
    middle = len(lines) // 2
    yield "first line removed", lines[1:]
    yield "last line removed", lines[:-1]
    yield "a line removed", lines[:middle] + lines[middle + 1 :]
    yield "first line twice", lines[:1] + lines
    yield "last line twice", lines + lines[-1:]
    yield "a line again at the end", lines + lines[middle : middle + 1]
    if len(set(lines)) > 1:
        yield "backwards", lines[::-1]
        yield "a line moved", lines[middle:] + lines[:middle]
    yield "other newlines", [line.replace(b"\n", b"\r\n") for line in lines]
    yield "an empty line", [*lines, b"\n"]


def file_changed(name, files, others):
    """Every other set of files that one of them can be replaced with."""
    data, rest = files[name], {other: contents for other, contents in files.items() if other != name}
    plain = gzip.decompress(data) if name.endswith(".gz") else data
    yield "deleted", rest
    for what, made in (
        ("emptied", b""), ("cut", data[: len(data) // 2]), ("torn", data[:-1]), ("twice", data * 2),
        ("of another run", others[name]), ("a byte more", data + b"\0"), ("a byte before", b" " + data),
        ("zeros behind", data + bytes(512)),
    ):  # fmt: skip
        yield what, files | {name: made}
    for what, lines in lines_changed(plain.splitlines(keepends=True)):
        made = b"".join(lines)
        yield what, files | {name: gzip.compress(made, 6, mtime=0) if name.endswith(".gz") else made}
    for other in rest:
        yield f"exchanged with {other}", files | {name: files[other], other: data}
    if name.endswith(".gz"):
        yield "unpacked", rest | {name.removesuffix(".gz"): plain}
        yield "unpacked beside", files | {name.removesuffix(".gz"): plain}
        yield "packed otherwise", files | {name: gzip.compress(plain, 1, mtime=0)}
    elif name.startswith("audit."):
        yield "packed", rest | {f"{name}.gz": gzip.compress(plain, 6, mtime=0)}
        yield "a segment more", files | {"audit.000002.jsonl": plain}
        yield "an empty segment more", files | {"audit.000002.jsonl": b""}


def test_no_file_can_be_removed_replaced_exchanged_or_rearranged(tmp_path, run, single_file):
    """Each file of a run in each of some twenty ways; both verifiers refuse it, say where, and say the same."""
    (tmp_path / "other").mkdir()
    files, others = contents(run), contents(whole_run(tmp_path / "other", "20261121-071503-ffffff", "q", 5))
    work, stems = tmp_path / "work", {name.removesuffix(".gz") for name in files}
    tried = 0
    for name in files:
        for what, changed in file_changed(name, files, others):
            if changed == files:
                continue
            for path, data in changed.items():
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                (work / path).write_bytes(data)
            status, output = single_file(str(work))
            with pytest.raises(VerificationError) as caught:
                check_run(str(work), (), pinned=False)
            assert (status, output) == (121, f"error: {printable(str(caught.value))}\n"), (name, what)
            named = any(stem in output for stem in {*stems, "audit.000002.jsonl"})
            assert named or (name, what) == (SEAL, "deleted"), (name, what, output)
            shutil.rmtree(work)
            tried += 1
    print(f"{tried} ways to rearrange files, none accepted by either verifier")
    assert tried > 300


def test_unsealed_runs_are_judged_alike(copy, single_file):
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
        status, output = single_file(str(copy), "--allow-unsealed", "--json")
        try:
            report = verify_run(read_run(str(copy)), allow_unsealed=True)
        except VerificationError:
            assert status == 121, (name, at, output)
        else:
            assert json.loads(output) == json.loads(json.dumps(report.fields())), (name, at)
            accepted += 1
        (copy / name).write_bytes(files[name])
    assert accepted > 5


class TestScript:
    def call(self, single_file, *arguments):
        # -I: neither this checkout nor what is installed here is importable by accident.
        command = [sys.executable, "-I", "-S", str(single_file.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_verifies_by_itself(self, run, single_file):
        called = self.call(single_file, str(run), "--public-key", KEY.public.data.hex())
        assert (called.returncode, called.stderr) == (0, "")
        assert called.stdout.startswith("ok: 563 records, 14 denials, each with a receipt; signed by key ")
        assert json.loads(self.call(single_file, str(run), "--json").stdout)["trusted"] is False

    def test_names_the_place(self, copy, single_file):
        log = copy / "audit.000001.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"verdict":"DENY"', b'"verdict":"ALLOW"', 1))
        called = self.call(single_file, str(copy))
        assert called.returncode == 121
        assert re.search(
            r"audit\.000001\.jsonl line \d+ \(byte \d+, record \d+\): .*verdict was flipped", called.stderr
        )

    def test_a_receipt(self, run, single_file, tmp_path):
        path, key = tmp_path / "receipt.json", ("--public-key", KEY.public.data.hex())
        statement = canonical.dumps(StoredTree(str(run)).receipt(7))
        path.write_bytes(statement)
        called = self.call(single_file, str(path), *key)
        assert called.stdout.startswith(f"ok: record 7 is in the log of run {RUN} (563 records); signed by key")
        assert called.stdout.endswith("(trusted)\n")
        path.write_bytes(statement.replace(b'"ALLOW"', b'"DENY"', 1))
        called = self.call(single_file, str(path), *key)
        assert (called.returncode, called.stderr) == (121, "error: the proof does not lead to the signed root\n")
        denials = self.call(single_file, str(run / DENIALS), *key)
        assert denials.stdout == f"ok: receipt of a decision of run {RUN}; signer trusted\n" * 14

    def test_a_mistake_in_the_command(self, run, single_file):
        assert self.call(single_file, str(run), "--public-key", "x").returncode == 2
        assert self.call(single_file).returncode == 2
        assert self.call(single_file, str(run / "absent")).returncode == 121
        unreadable = self.call(single_file, "/proc/self/mem")
        assert (unreadable.returncode, unreadable.stderr) == (2, "error: [Errno 5] Input/output error\n")

    def test_an_unsealed_run(self, copy, single_file):
        (copy / SEAL).unlink()
        assert self.call(single_file, str(copy)).returncode == 121
        assert self.call(single_file, str(copy), "--allow-unsealed").returncode == 0

    def test_works_beside_another_version_of_the_package(self, run, single_file, tmp_path):
        (tmp_path / "helm_sentry").mkdir()
        (tmp_path / "helm_sentry" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
        environment = {"PYTHONPATH": str(tmp_path)}
        called = subprocess.run([sys.executable, str(single_file.path), str(run)], env=environment, check=False)
        assert called.returncode == 0


class TestAssembly:
    def test_needs_the_standard_library_alone(self):
        imported = {
            name.partition(".")[0]
            for source in modules().values()
            for name in re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)
        }
        assert imported - {"helm_sentry"} <= sys.stdlib_module_names
        assert len(modules()) > 20

    def test_modules_are_taken_as_they_are(self):
        namespace = {"__name__": "assembled"}
        exec(assemble().decode().partition("sys.meta_path.insert")[0], namespace)  # noqa: S102
        assert namespace["MODULES"] == modules()

    def test_is_the_same_each_time(self):
        assert assemble() == assemble()


class TestSignatures:
    CASES = [
        (bytes(range(32)), b"", True),
        (bytes(32), b"message", True),
    ]

    @pytest.mark.parametrize(("seed", "message", "good"), CASES)
    def test_of_ours(self, seed, message, good):
        key = SigningKey(seed)
        signature = key.sign(message)
        for verifier in (ed25519.plain_verify, ed25519.verify):
            assert verifier(key.public.data, message, signature) is good
            assert not verifier(key.public.data, message + b"x", signature)
            assert not verifier(key.public.data, message, signature[:-1])
            for bit in range(0, 512, 37):
                changed = (int.from_bytes(signature) ^ 1 << bit).to_bytes(64)
                assert not verifier(key.public.data, message, changed)

    def test_vectors(self):
        vectors = published("ed25519")
        cases = [(case, True) for case in vectors["rfc8032_7_1"]]
        cases += [(case, case["result"] == "valid") for case in vectors["wycheproof"]]
        for case, good in cases:
            public, message, signature = (bytes.fromhex(case[name]) for name in ("pub", "msg", "sig"))
            assert ed25519.plain_verify(public, message, signature) is good, case

    def test_a_key_of_small_order_signs_nothing(self):
        identity = b"\x01" + bytes(31)
        for verifier in (ed25519.plain_verify, ed25519.verify):
            assert not verifier(identity, b"anything", identity + bytes(32))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
)


class TestCodec:
    @given(JSON)
    def test_the_same_bytes_or_none(self, value):
        assert answer(plain_codec.encode, value) == answer(codec.encode, value)

    @given(st.binary() | JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")))
    def test_the_same_text_is_canonical(self, data):
        assert answer(reading(plain_codec), data) == answer(reading(codec), data)

    @given(st.text(st.characters(exclude_categories=())))
    def test_surrogates(self, text):
        assert answer(plain_codec.encode, text) == answer(codec.encode, text)


def reading(module):
    """Reading of canonical text, as `canonical.loads` does it."""

    def read(data):
        value = module.decode(data)
        canonical.dumps(value)
        return value if module.encode(value) == data else None

    return read


def answer(function, value):
    try:
        return function(value)
    except ValueError:
        return None


def test_runs_of_every_size_agree(tmp_path, single_file):
    for number, count in enumerate((0, 1, 2, 254, 255, 256, 257)):
        assert sealed_run(tmp_path / str(number), verdicts=[Verdict.ALLOW] * count)
        status, output = single_file(str(tmp_path / str(number)), "--json")
        assert (status, json.loads(output)["records"]) == (0, count + 2)
