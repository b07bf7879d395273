import hashlib
import json

import pytest

from helm_sentry.audit import record
from helm_sentry.audit.canonical import dumps
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation

READ = Operation(Kind.FILE_READ, path="/etc/hosts")
ALLOW = Decision(Verdict.ALLOW, Reason.RULE, "hosts")
DENY = Decision(Verdict.DENY, Reason.DEFAULT)


def linked(fields, seq=0, prev=record.FIRST_PREV):
    fields.update(seq=seq, time=1_700_000_000_000_000, prev=prev)
    return record.link(fields)


class TestDecision:
    def test_members(self):
        fields = record.decision(7, "openat", [READ], ALLOW, "fd", object="fd00:1a2b")
        assert fields == {
            "type": "decision",
            "tid": 7,
            "syscall": "openat",
            "ops": ["file.read"],
            "target": "/etc/hosts",
            "verdict": "ALLOW",
            "reason": "RULE",
            "rule": "hosts",
            "action": "fd",
            "object": "fd00:1a2b",
        }

    def test_a_rename_names_both_ends(self):
        ends = [Operation(Kind.FILE_RENAME, path="/a"), Operation(Kind.FILE_CREATE, path="/b")]
        fields = record.decision(7, "renameat2", ends, DENY, "errno", errno="EACCES")
        assert (fields["target"], fields["to"], fields["errno"]) == ("/a", "/b", "EACCES")

    def test_two_operations_on_one_object_name_it_once(self):
        both = [Operation(Kind.FILE_CREATE, path="/a"), Operation(Kind.FILE_WRITE, path="/a")]
        assert "to" not in record.decision(7, "openat", both, ALLOW, "fd")

    def test_an_undecodable_syscall_has_no_operation(self):
        fields = record.decision(7, "", [], DENY, "errno", errno="ENOSYS")
        assert (fields["ops"], fields["target"]) == ([], "")

    def test_paths_and_arguments_are_escaped(self):
        operation = Operation(Kind.EXEC, path="/bin/\udcff", argv=("a%", "\udc80"))
        fields = record.decision(7, "execve", [operation], ALLOW, "continue", detail="\udcfe")
        assert (fields["target"], fields["argv"], fields["detail"]) == ("/bin/%FF", ["a%25", "%80"], "%FE")

    def test_every_member_is_of_a_type_that_the_strict_encoder_takes(self):
        operation = Operation(Kind.EXEC, path="/bin/true", argv=("true",))
        fields = record.decision(7, "execve", [operation], ALLOW, "continue")
        assert linked(fields)[:-1] == dumps(fields)

    def test_is_read_back(self):
        ends = [Operation(Kind.FILE_RENAME, path="/a"), Operation(Kind.FILE_CREATE, path="/b")]
        line = linked(record.decision(7, "renameat2", ends, DENY, "errno", errno="EACCES"))
        assert record.Record.parse(record.read(line[:-1], 0, record.FIRST_PREV)) == record.Record(
            seq=0,
            time=1_700_000_000_000_000,
            tid=7,
            syscall="renameat2",
            ops=("file.rename", "file.create"),
            target="/a",
            to="/b",
            verdict=Verdict.DENY,
            reason=Reason.DEFAULT,
            rule="default",
            action="errno",
            errno="EACCES",
        )

    def test_another_record_is_not_read_as_a_decision(self):
        with pytest.raises(ValueError):
            record.Record.parse(record.outcome(3, "ENOSPC"))


class TestOtherRecords:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            pytest.param(record.outcome(3, "ENOSPC"), {"type": "outcome", "of": 3, "errno": "ENOSPC"}, id="outcome"),
            pytest.param(
                record.executed(9, "/bin/\udcff", "1:2", ["\udcff"], [7, 8]),
                {"type": "exec", "pid": 9, "exe": "/bin/%FF", "object": "1:2", "argv": ["%FF"], "ancestors": [7, 8]},
                id="exec",
            ),
            pytest.param(
                record.notice("RUN_ENDED", "killed 9"),
                {"type": "notice", "code": "RUN_ENDED", "detail": "killed 9"},
                id="notice",
            ),
            pytest.param(
                record.end({"ALLOW": 1}, exit_status=3),
                {"type": "end", "counts": {"ALLOW": 1}, "exit": 3},
                id="exit",
            ),
            pytest.param(
                record.end({}, signal="SIGKILL"),
                {"type": "end", "counts": {}, "signal": "SIGKILL"},
                id="signal",
            ),
        ],
    )
    def test_members(self, fields, expected):
        assert fields == expected


class TestLink:
    def test_the_hash_is_over_the_record_with_an_empty_hash(self):
        fields = record.decision(7, "openat", [READ], ALLOW, "fd")
        written = json.loads(linked(fields))
        unhashed = json.dumps(written | {"hash": ""}, sort_keys=True, separators=(",", ":")).encode()
        assert written["hash"] == fields["hash"] == hashlib.sha256(unhashed).hexdigest()

    def test_text_that_looks_like_the_member_is_not_mistaken_for_it(self):
        line = linked(record.notice("X", '","hash":"","detail":"'))
        record.read(line[:-1], 0, record.FIRST_PREV)

    @pytest.mark.parametrize("name", ["a", "z"], ids=["before its own", "after its own"])
    def test_a_nested_hash_is_refused(self, name):
        with pytest.raises(ValueError, match="nested"):
            linked({"type": "notice", name: {"hash": ""}})

    def test_a_record_too_long_to_be_read_is_refused(self):
        with pytest.raises(ValueError, match="longer"):
            linked(record.notice("X", "x" * record.MAX_LINE))


class TestRead:
    @pytest.mark.parametrize(
        ("seq", "prev", "match"),
        [
            pytest.param(1, record.FIRST_PREV, "sequence number `0` where 1 is due", id="elsewhere"),
            pytest.param(0, "1" * 64, "chain is broken", id="after another record"),
        ],
    )
    def test_refuses_a_record_out_of_place(self, seq, prev, match):
        line = linked(record.decision(7, "openat", [READ], ALLOW, "fd"))
        with pytest.raises(ValueError, match=match):
            record.read(line[:-1], seq, prev)

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"type": "gossip"}, id="unknown type"),
            pytest.param({"type": []}, id="type that is no text"),
            pytest.param({"type": "decision"}, id="decision without a verdict"),
            pytest.param({"type": "decision", "verdict": "PERHAPS"}, id="unknown verdict"),
            pytest.param({"type": "decision", "verdict": ["ALLOW"]}, id="verdict that is no text"),
            pytest.param({"type": "notice", "verdict": "DENY"}, id="verdict in a notice"),
        ],
    )
    def test_refuses_what_is_no_record(self, fields):
        with pytest.raises(ValueError):
            record.read(linked(fields)[:-1], 0, record.FIRST_PREV)

    def test_a_sequence_number_is_not_a_boolean(self):
        line = linked(record.notice("X", ""), seq=False)
        with pytest.raises(ValueError, match="sequence"):
            record.read(line[:-1], 0, record.FIRST_PREV)

    @pytest.mark.parametrize("line", [b"[]", b"1", b"", b"{}", b'{"hash":"","type":"notice"}'])
    def test_refuses_other_json(self, line):
        with pytest.raises(ValueError):
            record.read(line, 0, record.FIRST_PREV)
