import json
import os
import re
import subprocess
import sys

import pytest
from receipt_runs import KEY, OTHER_KEY, RUN, begin, contents, decision, rechain, run_files, sealed_run, start

from helm_sentry.audit import record
from helm_sentry.audit.canonical import dumps
from helm_sentry.audit.merkle import leaf_hash, root_of
from helm_sentry.decision import Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.receipt.envelope import seal
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, LOG, PUBLIC, SEAL, TREE, State, UnsealedError
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.verify import verify_run


def verify(files, keys=(), **options):
    return verify_run(run_files(files), keys, **options)


def fails(files, match, keys=(), sequence=...):
    with pytest.raises(VerificationError, match=match) as caught:
        verify(files, keys, allow_unsealed=True)
    if sequence is not ...:
        assert caught.value.sequence == sequence


def lines(data):
    return data.splitlines(keepends=True)


class TestSealed:
    def test_report(self, sealed):
        report = verify(sealed, [OTHER_KEY.public, KEY.public])
        last = json.loads(lines(sealed[LOG])[-1])
        assert report.fields() == {
            "state": "sealed",
            "run": RUN,
            "records": 6,
            "counts": {"ALLOW": 2, "DENY": 1, "ESCALATE": 1},
            "head": last["hash"],
            "root": root_of([leaf_hash(line[:-1]) for line in lines(sealed[LOG])]).hex(),
            "receipts": 2,
            "unreceipted": 0,
            "checkpoints": 1,
            "signed": 6,
            "torn": 0,
            "enforcing": True,
            "degraded": [],
            "key": KEY.public.id,
            "trusted": True,
            "others": [],
        }

    def test_trust_and_integrity_are_separate(self, sealed):
        assert not verify(sealed).trusted
        fails(
            sealed,
            rf"public.key: .* by key `{KEY.public.id}`, not by `{OTHER_KEY.public.id}`",
            [OTHER_KEY.public],
        )

    def test_a_run_without_denials(self, tmp_path):
        report = verify(sealed_run(tmp_path / "run", verdicts=[Verdict.ALLOW]))
        assert (report.receipts, report.state) == (0, State.SEALED)

    def test_a_dry_run_does_not_pass_for_an_enforced_one(self, tmp_path):
        assert not verify(sealed_run(tmp_path / "run", enforcing=False)).enforcing


class TestChangedByte:
    """No byte of any file can be changed unnoticed, and the error says where it was."""

    @pytest.mark.parametrize("mask", [0x01, 0x20, 0x80], ids=hex)
    @pytest.mark.parametrize("name", ["run.json", "policy.json", "plan.json", PUBLIC, LOG, CHECKPOINTS, DENIALS, SEAL])
    def test_every_byte(self, sealed, name, mask):
        ends = [place for place, byte in enumerate(sealed[name]) if byte == ord("\n")]
        for place in range(len(sealed[name])):
            changed = bytearray(sealed[name])
            changed[place] ^= mask
            line = sum(end < place for end in ends)
            where = {
                LOG: rf" line {line + 1} \(byte \d+, record {line}\)",
                DENIALS: rf" line {line + 1} \(byte \d+\)",
                CHECKPOINTS: r" line 1 \(byte 0\)",
            }
            fails(sealed | {name: bytes(changed)}, f"^{re.escape(name)}{where.get(name, '')}: ")

    @pytest.mark.parametrize("name", ["run.json", "policy.json", "plan.json", PUBLIC, LOG, CHECKPOINTS, DENIALS, SEAL])
    def test_a_byte_more_or_less(self, sealed, name):
        data = sealed[name]
        for changed in (data + b"\n", data + b" ", data[:-1], b" " + data, data[1:], b""):
            fails(sealed | {name: changed}, re.escape(name))

    def test_the_set_of_files_is_complete(self, sealed):
        assert set(sealed) == {"run.json", "policy.json", "plan.json", PUBLIC, LOG, TREE, CHECKPOINTS, DENIALS, SEAL}


class TestChangedLog:
    def test_a_flipped_verdict(self, sealed):
        changed = sealed[LOG].replace(b'"verdict":"DENY"', b'"verdict":"ALLOW"')
        fails(
            sealed | {LOG: changed},
            r"audit.jsonl line 3 \(byte \d+, record 2\): the record was changed",
            sequence=2,
        )

    @pytest.mark.parametrize("place", range(6))
    def test_a_record_removed(self, sealed, place):
        kept = lines(sealed[LOG])
        del kept[place]
        fails(sealed | {LOG: b"".join(kept)}, f"record {place}", sequence=place)

    @pytest.mark.parametrize("place", range(6))
    def test_a_record_twice(self, sealed, place):
        kept = lines(sealed[LOG])
        kept.insert(place, kept[place])
        fails(sealed | {LOG: b"".join(kept)}, f"record {place + 1}", sequence=place + 1)

    @pytest.mark.parametrize("place", range(5))
    def test_two_records_exchanged(self, sealed, place):
        kept = lines(sealed[LOG])
        kept[place], kept[place + 1] = kept[place + 1], kept[place]
        fails(sealed | {LOG: b"".join(kept)}, f"record {place}", sequence=place)

    @pytest.mark.parametrize("place", range(7))
    def test_a_record_inserted(self, sealed, place):
        kept = lines(sealed[LOG])
        fields = decision(Verdict.ALLOW) | {"seq": place, "time": 1, "prev": "0" * 64}
        kept.insert(place, record.link(fields))
        fails(sealed | {LOG: b"".join(kept)}, f"record {place}", sequence=place)

    @pytest.mark.parametrize("count", range(6))
    def test_the_tail_cut_off(self, sealed, count):
        fails(
            sealed | {LOG: b"".join(lines(sealed[LOG])[:count])},
            f"cut off before record {count}",
            sequence=count,
        )

    @pytest.mark.parametrize("size", [1, 10, -1, -40])
    def test_the_last_line_cut_short(self, sealed, size):
        fails(sealed | {LOG: sealed[LOG][:size]}, "the line is cut short, but the run was sealed")

    def test_an_allowed_record_edited_and_the_log_chained_anew(self, sealed):
        edited = lines(sealed[LOG])
        edited[1] = edited[1].replace(b"/etc/passwd", b"/etc/hosts")
        fails(
            sealed | {LOG: rechain(b"".join(edited))},
            "receipts/denials.jsonl line 1 .* does not repeat record 2",
        )

    def test_the_end_record_edited_and_chained_anew(self, sealed):
        edited = sealed[LOG].replace(b'"exit":0', b'"exit":1')
        changed = sealed | {LOG: rechain(edited)}
        fails(changed, "checkpoints line 1 .*: the log was changed and chained anew: one of the records 0 to 5")
        fails(changed | {CHECKPOINTS: b""}, "checkpoints line 1 .*: the checkpoint of the whole log is missing")

    def test_the_counts_edited_and_chained_anew(self, sealed):
        edited = sealed[LOG].replace(b'"DENY":1', b'"DENY":0')
        fails(sealed | {LOG: rechain(edited)}, "record 5.*counts are not those of the log", sequence=5)

    @pytest.mark.parametrize("place", [1, 6], ids=["within", "after the end"])
    def test_a_second_start_record(self, sealed, place):
        kept = lines(sealed[LOG])
        kept.insert(place, kept[0])
        fails(sealed | {LOG: rechain(b"".join(kept))}, f"record {place}", sequence=place)

    def test_a_record_after_the_end(self, sealed):
        kept = lines(sealed[LOG])
        fails(sealed | {LOG: rechain(b"".join([*kept, kept[1]]))}, "record 6.*after the end", sequence=6)

    def test_a_log_without_its_start(self, sealed):
        fails(
            sealed | {LOG: rechain(b"".join(lines(sealed[LOG])[1:]))},
            "begins with its start record",
            sequence=0,
        )


class TestChangedReceipts:
    @pytest.mark.parametrize(
        ("place", "sequence", "match"),
        [(0, 2, "receipt of record 4, where that of record 2 is due"), (1, 4, "ESCALATE without a receipt")],
    )
    def test_a_denial_receipt_removed(self, sealed, place, sequence, match):
        kept = lines(sealed[DENIALS])
        del kept[place]
        fails(sealed | {DENIALS: b"".join(kept)}, match, sequence=sequence)

    def test_denial_receipts_exchanged(self, sealed):
        changed = b"".join(reversed(lines(sealed[DENIALS])))
        fails(sealed | {DENIALS: changed}, "receipt of record 4, where that of record 2 is due", sequence=2)

    def test_a_denial_receipt_twice(self, sealed):
        changed = sealed[DENIALS] + lines(sealed[DENIALS])[-1]
        fails(sealed | {DENIALS: changed}, "line 3 .* something that the log does not have")

    @pytest.mark.parametrize("name", [DENIALS, SEAL])
    def test_of_another_run(self, sealed, tmp_path, name):
        other = sealed_run(tmp_path / "other", run="20261121-071504-000000")
        fails(sealed | {name: other[name]}, f"{name}.*(`run` is|not a receipt of run)")

    @pytest.mark.parametrize("name", [DENIALS, SEAL])
    def test_of_another_signer(self, sealed, tmp_path, name):
        other = sealed_run(tmp_path / "other", key=OTHER_KEY)
        fails(
            sealed | {name: other[name]},
            f"{name}.*signed by `{OTHER_KEY.public.id}`, not by `{KEY.public.id}`",
        )

    def test_a_second_signature_is_not_covered_so_not_taken(self, sealed):
        envelope = json.loads(sealed[SEAL])
        envelope["signatures"] *= 2
        fails(
            sealed | {SEAL: dumps(envelope) + b"\n"},
            "not the canonical form of an envelope with one signature",
        )

    @pytest.mark.parametrize("spelling", [json.dumps, lambda envelope: dumps(envelope | {"x": 1}).decode()])
    def test_another_spelling(self, sealed, spelling):
        changed = spelling(json.loads(sealed[SEAL])).encode() + b"\n"
        fails(sealed | {SEAL: changed}, "receipts/run.json: not the canonical form")

    @pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"run":"x"}'])
    @pytest.mark.parametrize("name", [DENIALS, SEAL])
    def test_something_else_signed_with_the_right_key(self, sealed, name, payload):
        signed = seal(payload, KEY) + b"\n"
        fails(sealed | {name: signed}, f"{name}.*(`run` is|not a receipt of run)")

    def test_a_denial_receipt_in_place_of_the_seal(self, sealed):
        fails(sealed | {SEAL: lines(sealed[DENIALS])[0]}, "receipts/run.json: `kind` is `decision`")


class TestChangedFacts:
    @pytest.mark.parametrize("name", ["run.json", "policy.json", "plan.json"])
    def test_swapped(self, sealed, name):
        fails(sealed | {name: b'{"name":"other"}\n'}, f"{name}: not the file whose digest", sequence=0)

    def test_the_whole_run_signed_by_somebody_else(self, tmp_path):
        forged = sealed_run(tmp_path / "forged", key=OTHER_KEY)
        assert verify(forged).key == OTHER_KEY.public.id
        fails(forged, "not by", [KEY.public])

    def test_another_embedded_key(self, sealed):
        fails(
            sealed | {PUBLIC: OTHER_KEY.public.export()},
            f"public.key: the start record names key `{KEY.public.id}`",
        )

    def test_a_key_with_a_borrowed_id(self, sealed):
        borrowed = PublicKey(OTHER_KEY.public.data, KEY.public.id).export()
        fails(sealed | {PUBLIC: borrowed}, "public.key: not a public key file")


class TestUnsealed:
    """A killed supervisor is not tampering, and not a sealed run either."""

    def cut(self, sealed, count, torn=b""):
        kept = b"".join(lines(sealed[LOG])[:count]) + torn
        files = {name: data for name, data in sealed.items() if name != SEAL}
        records = [json.loads(line) for line in lines(kept) if line.endswith(b"\n")]
        denials = sum(fields.get("verdict") in ("DENY", "ESCALATE") for fields in records)
        return files | {LOG: kept, DENIALS: b"".join(lines(sealed[DENIALS])[:denials]), CHECKPOINTS: b""}

    @pytest.mark.parametrize("count", range(1, 7))
    def test_is_refused_unless_asked_for(self, sealed, count):
        files = self.cut(sealed, count)
        with pytest.raises(UnsealedError, match=f"without a seal after record {count - 1}: ") as caught:
            verify(files)
        assert caught.value.sequence == count - 1
        assert verify(files, allow_unsealed=True) == caught.value.report
        assert caught.value.report.state is State.UNSEALED

    def test_without_a_record(self, sealed):
        with pytest.raises(UnsealedError, match="before its first record: 0 of 0"):
            verify(self.cut(sealed, 0))

    @pytest.mark.parametrize(("count", "signed"), [(1, 0), (2, 0), (3, 3), (4, 3), (5, 5), (6, 5)])
    def test_a_denial_receipt_vouches_for_what_came_before(self, sealed, count, signed):
        report = verify(self.cut(sealed, count), [KEY.public], allow_unsealed=True)
        assert (report.signed, report.trusted) == (signed, signed > 0)

    @pytest.mark.parametrize("size", [1, 100, -1])
    def test_a_torn_last_line(self, sealed, size):
        torn = lines(sealed[LOG])[3][:size]
        files = self.cut(sealed, 3, torn)
        report = verify(files, allow_unsealed=True)
        assert (report.records, report.torn) == (3, len(torn))
        with pytest.raises(UnsealedError, match=f"of which {len(torn)} bytes were written"):
            verify(files)

    @pytest.mark.parametrize("keep", [0, 1, 40])
    def test_a_signer_that_was_behind(self, sealed, keep):
        files = self.cut(sealed, 6)
        first, second = lines(files[DENIALS])
        report = verify(files | {DENIALS: first + second[:keep]}, allow_unsealed=True)
        assert (report.receipts, report.unreceipted, report.signed) == (1, 1, 3)

    def test_a_signature_for_a_record_that_is_gone_is_tampering(self, sealed):
        files = self.cut(sealed, 3) | {DENIALS: sealed[DENIALS]}
        fails(files, "something that the log does not have")

    def test_every_changed_byte_within_the_signed_part_fails(self, sealed):
        files = self.cut(sealed, 3)
        for place in range(len(files[LOG]) - 1):
            changed = bytearray(files[LOG])
            changed[place] ^= 1
            fails(files | {LOG: bytes(changed)}, LOG)

    def test_a_killed_supervisor_leaves_one(self, tmp_path):
        log = begin(str(tmp_path))
        Signer(str(tmp_path), KEY)
        log.append(decision(Verdict.DENY))
        report = verify(contents(tmp_path), allow_unsealed=True)
        assert (report.state, report.records, report.receipts + report.unreceipted) == (State.UNSEALED, 2, 1)


class TestHostileRecords:
    """A log that anybody could have written never ends in anything but a verification error."""

    @pytest.mark.parametrize(
        "members",
        [
            {"type": []},
            {"type": "decision", "verdict": {}},
            {"type": "start", "run": 1, "degraded": 1},
            {"type": "start", "key": None},
            {"type": "start", "run_digest": []},
        ],
    )
    def test_strange_types(self, sealed, members):
        first = record.link({"seq": 0, "time": 0, "prev": record.FIRST_PREV} | members)
        fails(sealed | {LOG: first}, "record 0|run.json", sequence=0)

    def test_a_start_record_that_names_nothing(self, sealed):
        bare = start({}) | {"seq": 0, "time": 0, "prev": record.FIRST_PREV}
        fails(sealed | {LOG: record.link(bare)}, "run.json", sequence=0)


def test_verifying_loads_nothing_of_the_supervisor():
    program = "import sys, helm_sentry.cli.verify; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    parts = ("abi", "launch", "confine", "intercept", "broker", "sensor", "control", "session", "audit.log")
    assert "helm_sentry.receipt.verify" in loaded
    assert not [name for name in loaded if name.startswith(tuple(f"helm_sentry.{part}" for part in parts))]
