"""A pack of any run, also of one that ended without its end record, in both layouts."""

import pytest

from helm_sentry.audit import record
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import VerificationError
from helm_sentry.evidence import pack
from helm_sentry.evidence.acts import account
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


def test_the_same_act_is_one_act_with_a_number():
    denied = [decided(Kind.FILE_READ, "/s", Verdict.DENY, "errno", errno="EACCES") for _ in range(3)]
    (act,) = of(*denied).acts
    assert (act.seq, act.count, act.happened, act.code) == (1, 3, False, "SANDBOX_VIOLATION")


def test_reading_what_may_be_read_is_no_act():
    assert of(decided(Kind.FILE_READ, "/w/x", action="fd")).acts == ()


def test_what_failed_after_it_was_allowed_did_not_happen():
    assert of(decided(Kind.FILE_WRITE, "/w/x"), record.outcome(1, "ENOSPC")).acts == ()
    assert of(decided(Kind.FILE_WRITE, "/w/x", action="errno", errno="ENOENT")).acts == ()
    both = of(decided(Kind.FILE_WRITE, "/w/x"), decided(Kind.FILE_WRITE, "/w/x"), record.outcome(1, "ENOSPC"))
    assert [act.count for act in both.acts] == [1]
    assert len(of(decided(Kind.NET_CONNECT, ""), record.outcome(1, "EINPROGRESS")).acts) == 1
