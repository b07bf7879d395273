"""A pack of any run, also of one that ended without its end record, in both layouts."""

import io
import re
import tarfile

import pytest

from helm_sentry.audit import record
from helm_sentry.audit.canonical import dumps
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.evidence import artefacts, host_chain, manifest, pack
from helm_sentry.evidence.acts import account
from helm_sentry.evidence.folder import archive, read_pack, write_pack
from helm_sentry.operation import Kind, Operation
from helm_sentry.receipt.keys import SigningKey

KEY = SigningKey(bytes([0x11] * 32))
FILES = {"audit.jsonl": b"the log\n", "receipts/run.json": b"the seal\n"}
POLICY = {
    "name": "p",
    "allow": [{"id": "w", "file": {"do": ["write"], "paths": ["/w/**"]}}],
    "limits": {"memory": "9B"},
}


def records(*wanted):
    digests = {"policy_digest": "00", "plan_digest": "11"}
    start = record.start(
        run="r", version="1", argv=["a"], user="u", host="h", features=[], degraded=[], digests=digests
    )
    chain, prev = [], record.FIRST_PREV
    for number, fields in enumerate([start, *wanted]):
        fields |= {"seq": number, "time": 1_700_000_000_000_000 + number, "prev": prev}
        record.link(fields)
        prev = fields["hash"]
        chain.append(fields)
    return chain


def decided(kind, path, verdict=Verdict.ALLOW, action="value", **members):
    operation = Operation(kind, path=path)
    return record.decision(7, "openat", (operation,), Decision(verdict, Reason.RULE, "w"), action, **members)


def of(*wanted):
    return account(records(*wanted), POLICY)


@pytest.mark.parametrize("layout", pack.Layout)
@pytest.mark.parametrize("ended", [True, False])
def test_a_pack_verifies(layout, ended):
    wanted = [decided(Kind.FILE_WRITE, "/w/x"), decided(Kind.FILE_READ, "/s", Verdict.DENY, "errno", errno="EACCES")]
    made = pack.build(of(*wanted, *([record.end({}, exit_status=0)] if ended else [])), FILES, layout, KEY, {"R": b""})
    assert pack.verify(made, KEY.public) == FILES
    with pytest.raises(VerificationError):
        pack.verify(made, SigningKey(bytes(32)).public)
    for path in made:
        changed = {**made, path: made[path][:-1] + b"\0"} if made[path] else {**made, path: b"x"}
        with pytest.raises(VerificationError):
            pack.verify(changed, KEY.public)
        with pytest.raises(VerificationError):
            pack.verify({name: data for name, data in made.items() if name != path}, KEY.public)


@pytest.mark.parametrize("layout", pack.Layout)
def test_no_bit_of_what_holds_a_pack_together_can_be_changed(layout):
    """Not even one that changes no meaning, as the case of a hexadecimal digit."""
    made = pack.build(of(decided(Kind.FILE_WRITE, "/w/x"), record.end({}, exit_status=0)), FILES, layout, KEY, {})
    names = {manifest.INDEX, manifest.SEAL, manifest.MANIFEST, manifest.MANIFEST_SIGNATURE} & set(made)
    assert len(names) == 2
    for name in names:
        for place in range(8 * len(made[name])):
            changed = bytearray(made[name])
            changed[place // 8] ^= 1 << place % 8
            with pytest.raises(VerificationError):
                manifest.check_pack(made | {name: bytes(changed)}, KEY.public)
        for changed in (made[name] + b"\n", b" " + made[name], made[name].replace(b":", b": ")):
            with pytest.raises(VerificationError, match=re.escape(name)):
                manifest.check_pack(made | {name: changed}, KEY.public)


def test_who_signed_a_pack_can_be_told():
    made = pack.build(of(record.end({}, exit_status=0)), FILES, pack.Layout.SPEC, KEY, {})
    assert manifest.signer(made) == KEY.public
    for signature in (b"", b"{}", b"[]", b'{"public_key":"00"}', b'{"public_key":"x"}'):
        with pytest.raises(VerificationError):
            manifest.signer(made | {manifest.MANIFEST_SIGNATURE: signature})
    with pytest.raises(VerificationError, match="not an evidence pack"):
        manifest.signer({})


def test_the_same_act_is_one_act_with_a_number():
    denied = [decided(Kind.FILE_READ, "/s", Verdict.DENY, "errno", errno="EACCES") for _ in range(3)]
    (act,) = of(*denied).acts
    assert (act.seq, act.count, act.happened, act.code) == (1, 3, False, "SANDBOX_VIOLATION")


def test_an_act_on_two_objects_done_again_says_so():
    """Of a move both ends count, and of an act that was done again also when it last was."""
    ends = [Operation(Kind.FILE_RENAME, path=path) for path in ("/w/a", "/w/b")]
    moved = record.decision(7, "rename", ends, Decision(Verdict.ALLOW, Reason.RULE, "w"), "value")
    chain = artefacts.action_chain(of(moved, dict(moved), record.end({}, exit_status=0)), KEY)
    (receipt,) = chain["receipts"]
    assert receipt["action_event"]["target_ref"] == "file:///w/a"
    assert receipt["action_event"]["timestamp"] == "2023-11-14T22:13:20.000001Z"
    assert (receipt["metadata"]["to"], receipt["metadata"]["last"]) == ("file:///w/b", "2023-11-14T22:13:20.000002Z")


@pytest.mark.parametrize(
    ("hosts", "members"),
    [
        ((), {}),
        (("a.example",), {"destination_host": "a.example"}),
        (("a.example", "b.example"), {"correlation_hints": {"destination_hosts": "a.example b.example"}}),
    ],
)
def test_traffic_says_by_what_names_it_went(hosts, members):
    place = Operation(Kind.NET_CONNECT, address="192.0.2.7", port=443, protocol="tcp", hosts=hosts)
    connected = record.decision(7, "connect", (place,), Decision(Verdict.ALLOW, Reason.RULE, "w"), "value")
    left = record.traffic(1, place, 5, 6, exact=True)
    chain = artefacts.network_chain(of(connected, left, record.end({}, exit_status=0)), KEY)
    event = host_chain.verify(dumps(chain), KEY.public).receipts[0]["event"]
    wanted = ("destination_host", "correlation_hints")
    assert {name: event[name] for name in wanted if name in event} == members
    assert (event["destination_ip"], event["bytes_sent"], event["bytes_received"]) == ("192.0.2.7", 5, 6)


def test_reading_what_may_be_read_is_no_act():
    assert of(decided(Kind.FILE_READ, "/w/x", action="fd")).acts == ()


def test_what_failed_after_it_was_allowed_did_not_happen():
    assert of(decided(Kind.FILE_WRITE, "/w/x"), record.outcome(1, "ENOSPC")).acts == ()
    assert of(decided(Kind.FILE_WRITE, "/w/x", action="errno", errno="ENOENT")).acts == ()
    both = of(decided(Kind.FILE_WRITE, "/w/x"), decided(Kind.FILE_WRITE, "/w/x"), record.outcome(1, "ENOSPC"))
    assert [act.count for act in both.acts] == [1]
    assert len(of(decided(Kind.NET_CONNECT, ""), record.outcome(1, "EINPROGRESS")).acts) == 1


OUTSIDE = ["run//{}", "run/../../{}", "run/./x", "/{}", "run/x/", "", "run/\x1b[2J", "run/\0x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_written_outside_a_pack(tmp_path, name):
    target = tmp_path / "owned"
    path = name.format(str(target).strip("/"))
    for place in (tmp_path / "pack", tmp_path / "pack.tar"):
        with pytest.raises(VerificationError, match="out of the pack"):
            write_pack({path: b"x"}, str(place))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_archive_that_leads_out_of_the_pack_is_refused(tmp_path, name):
    packed = tmp_path / "pack.tar"
    packed.write_bytes(archive({"run/x": b"x"}))
    assert read_pack(str(packed)) == {"run/x": b"x"}
    packed.write_bytes(archive({name.format("owned"): b"x"}))
    with pytest.raises(VerificationError):
        read_pack(str(packed))


def test_an_archive_of_holes_is_refused(tmp_path):
    """A kilobyte that says it is two gigabytes of zeros."""
    header = tarfile.TarInfo("run/x")
    header.size, header.pax_headers = 0, {"GNU.sparse.size": str(1 << 31), "GNU.sparse.map": "0,0"}
    with tarfile.open(tmp_path / "pack.tar", "w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(header, io.BytesIO())
    with pytest.raises(VerificationError, match="a hole"):
        read_pack(str(tmp_path / "pack.tar"))


@pytest.mark.parametrize(("kind", "size"), [(b"x", b"\x80" + b"\x7f" * 11), (b"g", b"\xff" * 12), (b"0", b"\xff" * 12)])
def test_an_archive_with_impossible_sizes_is_refused(tmp_path, kind, size):
    header = bytearray(tarfile.TarInfo("run/x").tobuf())
    header[124:136], header[156:157] = size, kind
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    (tmp_path / "pack.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(VerificationError):
        read_pack(str(tmp_path / "pack.tar"))
