"""What can be done to a run, one by one: both verifiers name it with its place, and end with 121."""

import re
from pathlib import Path

import pytest
from receipt_runs import KEY, OTHER_KEY, RUN, begin, contents, decision, rechain, sealed_run, split

from helm_sentry.audit import record
from helm_sentry.decision import Verdict
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, LOG, PUBLIC, SEAL
from helm_sentry.receipt.signer import Signer

OTHER_RUN = "20261121-071503-ffffff"
Files = dict[str, bytes]


def flipped(files: Files) -> Files:
    return files | {LOG: files[LOG].replace(b'"verdict":"DENY"', b'"verdict":"ALLOW"', 1)}


def edited(files: Files) -> Files:
    return files | {LOG: files[LOG].replace(b"/etc/passwd", b"/etc/hosts", 1)}


def chained_anew(files: Files) -> Files:
    return files | {LOG: rechain(edited(files)[LOG])}


def flipped_and_chained_anew(files: Files) -> Files:
    return files | {LOG: rechain(flipped(files)[LOG].replace(b'"DENY":1', b'"DENY":0').replace(b'W":2', b'W":3'))}


def inserted(files: Files) -> Files:
    lines = split(files[LOG])
    before = lines[1]
    made = decision(Verdict.ALLOW) | {"seq": 2, "time": 1, "prev": re.findall(rb'"hash":"(\w+)"', before)[0].decode()}
    return files | {LOG: b"".join([*lines[:2], record.link(made), *lines[2:]])}


def moved(*order: int) -> object:
    def change(files: Files) -> Files:
        lines = split(files[LOG])
        return files | {LOG: b"".join(lines[number] for number in order)}

    return change


def without(name: str) -> object:
    return lambda files: {other: data for other, data in files.items() if other != name}


PLACE = r"audit\.jsonl line {} \(byte \d+, record {}\): "
MANIPULATIONS = {
    "flipped verdict": (flipped, PLACE.format(3, 2) + "the record was changed: its verdict was flipped from DENY to"),
    "flipped and chained anew": (flipped_and_chained_anew, "receipts/denials.jsonl line 1 .*record 2"),
    "edited record": (edited, PLACE.format(2, 1) + "the record was changed"),
    "edited and chained anew": (chained_anew, "receipts/denials.jsonl line 1 .*does not repeat record 2 of the log"),
    "inserted record": (inserted, PLACE.format(4, 3) + ".*"),
    "removed record": (moved(0, 1, 3, 4, 5), PLACE.format(3, 2) + "record 3 stands here: record 2 is missing, removed"),
    "removed records": (moved(0, 4, 5), PLACE.format(2, 1) + "record 4 stands here: records 1 to 3 are missing"),
    "reordered records": (moved(0, 2, 1, 3, 4, 5), PLACE.format(2, 1) + "record 2 stands here, and 1 stands 1 below"),
    "duplicated record": (moved(0, 1, 1, 2, 3, 4, 5), PLACE.format(3, 2) + "record 1 stands here a second time"),
    "cut tail": (moved(0, 1, 2, 3), "audit.jsonl: cut off before record 4|denials.jsonl line 2 .*|cut off"),
    "torn tail": (lambda files: files | {LOG: files[LOG][:-9]}, PLACE.format(6, 5) + "the line is cut short"),
    "replaced policy": (
        lambda files: files | {"policy.json": b'{"name":"other"}\n'},
        "policy.json: not the file whose digest the log's start record holds, so it was changed or replaced",
    ),
    "replaced plan": (lambda files: files | {"plan.json": b'{"tier":"other"}\n'}, "plan.json: not the file whose"),
    "missing policy": (without("policy.json"), "policy.json: No such file"),
    "missing denial receipt": (
        lambda files: files | {DENIALS: split(files[DENIALS])[0]},
        PLACE.format(5, 4) + "ESCALATE without a receipt in receipts/denials.jsonl",
    ),
    "missing seal": (without(SEAL), "the run ended without a seal after record 5"),
    "cut tail without its seal": (
        lambda files: without(SEAL)(moved(0, 1, 2, 3)(files)),
        "receipts/denials.jsonl line 2 .*the log does not have|checkpoints line 1 .*cut off",
    ),
    "replaced key": (
        lambda files: files | {PUBLIC: OTHER_KEY.public.export()},
        "public.key: the start record names key|the signature|denials.jsonl line 1|checkpoints line 1",
    ),
}


def placed(directory: Path, files: Files) -> str:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return str(directory)


@pytest.mark.parametrize("manipulation", MANIPULATIONS)
def test_is_named_with_its_place(sealed, verifier, tmp_path, manipulation):
    change, words = MANIPULATIONS[manipulation]
    assert verifier(placed(tmp_path / "whole", sealed))[0] == 0
    status, output = verifier(placed(tmp_path / "changed", change(dict(sealed))))
    assert status == 121
    assert re.search(words, output), output


@pytest.mark.parametrize("name", ["run.json", "policy.json", "plan.json", LOG, CHECKPOINTS, DENIALS, SEAL])
def test_a_file_of_another_run_is_named(sealed, verifier, tmp_path, name):
    """Mixed runs, by the same signer: each file speaks for its own run."""
    other = sealed_run(tmp_path / "other", run=OTHER_RUN, policy="q", degraded=["landlock"])
    if name == "plan.json":
        other[name] = b'{"tier":"kernel"}\n'
    status, output = verifier(placed(tmp_path / "mixed", sealed | {name: other[name]}))
    assert status == 121
    named = {LOG: "run.json", "policy.json": "policy.json"}.get(name, name)
    assert named in output


def test_a_replayed_run_is_named(sealed, verifier, tmp_path):
    """An old run, whole and well signed, in the place of another."""
    assert verifier(placed(tmp_path / RUN, sealed))[0] == 0
    status, output = verifier(placed(tmp_path / OTHER_RUN, sealed))
    assert status == 121
    assert f"the directory of run `{OTHER_RUN}` holds run `{RUN}`" in output


def test_a_wrong_key_is_named(sealed, verifier, tmp_path):
    directory = placed(tmp_path / "run", sealed)
    good, wrong = tmp_path / "good.pub", tmp_path / "wrong.pub"
    good.write_bytes(KEY.public.export())
    wrong.write_bytes(OTHER_KEY.public.export())
    assert verifier(directory, "--public-key", str(good))[0] == 0
    assert "(trusted)" in verifier(directory, "--public-key", KEY.public.data.hex())[1]
    status, output = verifier(directory, "--public-key", str(wrong))
    assert status == 121
    assert f"public.key: the run was signed by key `{KEY.public.id}`, not by `{OTHER_KEY.public.id}`" in output


def test_a_key_that_lies_in_the_run_is_no_reason_to_trust_it(verifier, tmp_path):
    """Somebody signs another story with a key of his own, and puts that key beside it."""
    sealed_run(tmp_path / "forged", key=OTHER_KEY)
    status, output = verifier(str(tmp_path / "forged"))
    assert status == 0
    assert "not pinned" in output and "(trusted)" not in output
    assert verifier(str(tmp_path / "forged"), "--public-key", KEY.public.data.hex())[0] == 121


def test_every_kind_of_record_verifies(verifier, tmp_path):
    """An honest run with all that a log may hold; gaps and answers of people have receipts like denials."""
    tmp_path = tmp_path / "run"
    tmp_path.mkdir()
    log = begin(str(tmp_path))
    signer = Signer(str(tmp_path), KEY)
    for fields in (
        decision(Verdict.ALLOW),
        record.outcome(1, "EIO"),
        record.executed(7, "/bin/true", "1:2", ["true"]),
        record.notice("no-witness", "x"),
        record.forked(7, 1),
        record.exited(7, 0),
        record.witnessing(),
        record.witnessed({"finished": 1, "carried": 0}, {"received": 1}, final=True),
        record.gap("answered", "one more"),
        decision(Verdict.ESCALATE),
        record.approval(10, 1, "once", "h at the terminal", "0" * 64),
        record.policy_change("applied", 1, "pushed", "h", {"name": "p"}),
        decision(Verdict.DENY),
    ):
        log.append(fields)
    log.append(record.end(log.counts, exit_status=0))
    signer.seal(log.totals)
    log.close()
    written = {line.split(b'"type":"')[1].split(b'"')[0].decode() for line in split(contents(tmp_path)[LOG])}
    assert written == set(record.TYPES) - {"traffic"}
    status, output = verifier(str(tmp_path))
    assert status == 0, output
