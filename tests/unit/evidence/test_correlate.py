"""Host evidence against HELM's decisions: verified first, best match, verdicts read, volume summed, drift signed."""

import json
from pathlib import Path

import pytest

from helm_sentry.audit.canonical import dumps
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.evidence import host_chain, intents, jcs, receipt_v5, statement
from helm_sentry.evidence.correlate import Status, correlate, drift_receipt
from helm_sentry.evidence.serial import digest
from helm_sentry.receipt.keys import SigningKey

GOLDEN = Path(__file__).resolve().parents[2] / "golden/helm"
KEY, HELM_KEY = SigningKey(bytes([0x11] * 32)), SigningKey(bytes([0x22] * 32))
AT = "2026-11-20T10:00:00Z"


def network(ip, port=443, verdict="ALLOWED", sent=0, at=AT, exact="true", **members):
    event = {"destination_ip": ip, "destination_port": port, "protocol": "tcp", "verdict": verdict, "timestamp": at}
    event |= {"bytes_sent": sent} if sent else {}
    return {"event": event, "metadata": {"exact": exact}, **members}


def action(target, decision="ALLOW", tool="syscall:openat", at=AT, **members):
    act = {"action_id": "a", "tool_name": tool, "target_ref": target, "decision": decision, "timestamp": at}
    return {"event_kind": "action_effect", "action_event": act, **members}


def named(*hosts, **members):
    found = network(A, **members)
    one, several = {"destination_host": hosts[0]}, {"correlation_hints": {"destination_hosts": " ".join(hosts)}}
    found["event"] |= one if len(hosts) == 1 else several
    return found


def chain(*events):
    receipts = [{"receipt_id": f"e{n}", "host_id": "h", "recorded_at": AT, **event} for n, event in enumerate(events)]
    return host_chain.verify(dumps(host_chain.build("c", AT, receipts, KEY)), KEY.public)


def decided(*members):
    """Signed HELM receipts with these metadata; `verdict` and `at` are taken out."""
    receipts = []
    for number, metadata in enumerate(members):
        verdict, at = metadata.pop("verdict", "ALLOW"), metadata.pop("at", AT)
        effect = "network-egress" if {"destination_ip", "destination_host"} & set(metadata) else "tool-call"
        receipts.append(
            {"receipt_id": f"i{number}", "decision_id": "d", "effect_id": effect, "verdict": verdict, "timestamp": at}
            | {"metadata": metadata}
        )
    data = jcs.dumps(receipt_v5.build(receipts, "s", "sha256:00", HELM_KEY))
    return intents.read(data, [HELM_KEY.public])


def to(ip, port="443", **members):
    return {"destination_ip": ip, "destination_port": port, "protocol": "tcp", **members}


def results(events, wanted, **options):
    found = correlate([chain(*events)], decided(*wanted), **options)
    return [(finding.status, finding.intent.id if finding.intent else "") for finding in found]


A, B = "203.0.113.10", "203.0.113.20"
CASES = {
    "allowed and seen": ([network(A)], [to(A)], [(Status.CORRELATED, "i0")]),
    "no intent": ([network(A)], [], [(Status.UNCORRELATED, "")]),
    "after a deny": ([network(A)], [to(A, verdict="DENY")], [(Status.AFTER_DENY, "i0")]),
    "waiting for a person is not leave": ([network(A)], [to(A, verdict="ESCALATE")], [(Status.AFTER_DENY, "i0")]),
    "refused by both": ([network(A, verdict="BLOCKED")], [to(A, verdict="DENY")], [(Status.CONFIRMED, "i0")]),
    "allowed, but blocked at the host": ([network(A, verdict="BLOCKED")], [to(A)], [(Status.STOPPED, "i0")]),
    "blocked without intent": ([network(A, verdict="BLOCKED")], [], [(Status.BLOCKED, "")]),
    "another port": (
        [network(A, port=8443, workload_id="w")],
        [to(A, workload_id="w")],
        [(Status.MISMATCH, "i0")],
    ),
    "never seen": ([], [to(A)], [(Status.MISSING, "i0")]),
    "a deny that nothing followed": ([], [to(A, verdict="DENY")], []),
    "best, not first": (
        [network(A, workload_id="w"), network(B, workload_id="w")],
        [to(B, workload_id="w"), to(A, workload_id="w")],
        [(Status.CORRELATED, "i1"), (Status.CORRELATED, "i0")],
    ),
    "the nearer in time": (
        [network(A, at="2026-11-20T10:02:00Z")],
        [to(A), to(A, at="2026-11-20T10:01:59Z")],
        [(Status.CORRELATED, "i1"), (Status.MISSING, "i0")],
    ),
    "outside the window": (
        [network(A, at="2026-11-20T10:05:01Z")],
        [to(A)],
        [(Status.UNCORRELATED, ""), (Status.MISSING, "i0")],
    ),
    "identity holds outside the window": (
        [network(A, at="2026-11-20T11:00:00Z", sandbox_lease_id="l")],
        [to(A, sandbox_lease_id="l")],
        [(Status.CORRELATED, "i0")],
    ),
    "another's identity": (
        [network(A, workload_id="mine")],
        [to(A, workload_id="yours")],
        [(Status.UNCORRELATED, ""), (Status.MISSING, "i0")],
    ),
    "by process": (
        [network(A, at="2026-11-20T11:00:00Z", process_ancestry=["shell", "p1"])],
        [to(A, process_identity="p1")],
        [(Status.CORRELATED, "i0")],
    ),
    "too much at once": ([network(A, sent=11)], [to(A, max_egress_bytes="10")], [(Status.VOLUME, "i0")]),
    "too much in parts": (
        [network(A, sent=6), network(A, sent=6), network(A, sent=6)],
        [to(A, max_egress_bytes="10")],
        [(Status.CORRELATED, "i0"), (Status.VOLUME, "i0"), (Status.VOLUME, "i0")],
    ),
    "just enough": ([network(A, sent=10)], [to(A, max_egress_bytes="10")], [(Status.CORRELATED, "i0")]),
    "a ceiling and no exact count": (
        [network(A, sent=1, exact="false")],
        [to(A, max_egress_bytes="10")],
        [(Status.VOLUME, "i0")],
    ),
    "a file with leave": ([action("file:///w/x")], [{"path": "/w/x"}], [(Status.CORRELATED, "i0")]),
    "a file beneath": ([action("file:///w/x")], [{"path": "/w/"}], [(Status.CORRELATED, "i0")]),
    "a file without leave": (
        [action("file:///w/y")],
        [{"path": "/w/x"}],
        [(Status.UNBOUND, ""), (Status.MISSING, "i0")],
    ),
    "a file after a deny": (
        [action("file:///w/x")],
        [{"path": "/w/x", "verdict": "DENY"}],
        [(Status.AFTER_DENY, "i0")],
    ),
    "a file refused by both": (
        [action("file:///etc/shadow", "DENY")],
        [{"path": "/etc/shadow", "verdict": "DENY"}],
        [(Status.CONFIRMED, "i0")],
    ),
    "a program without leave": ([action("file:///bin/sh", tool="syscall:execve")], [], [(Status.UNBOUND, "")]),
    "a program allowed, but blocked": (
        [action("file:///bin/sh", "DENY", "syscall:execve")],
        [{"target_ref": "file:///bin/sh"}],
        [(Status.STOPPED, "i0")],
    ),
    "refused before it, allowed after it": (
        [network(A, at="2026-11-20T10:02:00Z")],
        [to(A, verdict="DENY"), to(A, at="2026-11-20T10:02:30Z")],
        [(Status.AFTER_DENY, "i0"), (Status.MISSING, "i1")],
    ),
    "allowed and refused at once": (
        [network(A)],
        [to(A), to(A, verdict="DENY")],
        [(Status.AFTER_DENY, "i1"), (Status.MISSING, "i0")],
    ),
    "refused there, allowed anywhere": (
        [network(A, at="2026-11-20T10:01:00Z")],
        [to(A, verdict="DENY"), {"destination_ip": A, "at": "2026-11-20T10:00:59Z"}],
        [(Status.AFTER_DENY, "i0"), (Status.MISSING, "i1")],
    ),
    "refused in a word of another case": ([network(A)], [to(A, verdict="Denied")], [(Status.AFTER_DENY, "i0")]),
    "blocked here, refused elsewhere": (
        [network(A, verdict="BLOCKED", workload_id="w")],
        [to(B, verdict="DENY", workload_id="w")],
        [(Status.BLOCKED, "i0")],
    ),
    "nothing may be sent": ([network(A, sent=1)], [to(A, max_egress_bytes=0)], [(Status.VOLUME, "i0")]),
    "by name": (
        [named("api.example")],
        [{"destination_host": "API.example", "destination_port": "443"}],
        [(Status.CORRELATED, "i0")],
    ),
    "by one of its names": (
        [named("a.example", "b.example")],
        [{"destination_host": "b.example"}],
        [(Status.CORRELATED, "i0")],
    ),
    "by another name": (
        [named("a.example", "b.example", workload_id="w")],
        [{"destination_host": "c.example", "workload_id": "w"}],
        [(Status.MISMATCH, "i0")],
    ),
    "refused by name": (
        [named("api.example")],
        [{"destination_host": "api.example", "verdict": "DENY"}],
        [(Status.AFTER_DENY, "i0")],
    ),
    "a file refused in a directory that is allowed": (
        [action("file:///w/secret", at="2026-11-20T10:00:09Z")],
        [{"path": "/w/secret", "verdict": "DENY"}, {"path": "/w/", "at": "2026-11-20T10:00:09Z"}],
        [(Status.AFTER_DENY, "i0"), (Status.MISSING, "i1")],
    ),
    "a directory refused in one that is allowed": (
        [action("file:///w/keys/x", at="2026-11-20T10:00:09Z")],
        [{"path": "/w/keys/", "verdict": "DENY"}, {"path": "/w/", "at": "2026-11-20T10:00:09Z"}],
        [(Status.AFTER_DENY, "i0"), (Status.MISSING, "i1")],
    ),
    "a path spelled otherwise": ([action("file:///w/50%25")], [{"path": "/w//./50%"}], [(Status.CORRELATED, "i0")]),
    "moved to where nobody meant": (
        [action("file:///w/x", metadata={"to": "file:///home/x"})],
        [{"path": "/w/x"}],
        [(Status.CORRELATED, "i0"), (Status.UNBOUND, "")],
    ),
    "moved as meant": (
        [action("file:///w/x", metadata={"to": "file:///w/y"})],
        [{"path": "/w/x"}, {"path": "/w/y"}],
        [(Status.CORRELATED, "i0")],
    ),
    "done again after it was refused": (
        [action("file:///w/x", metadata={"last": "2026-11-20T10:02:00Z"})],
        [{"path": "/w/x"}, {"path": "/w/x", "verdict": "DENY", "at": "2026-11-20T10:01:00Z"}],
        [(Status.CORRELATED, "i0"), (Status.AFTER_DENY, "i1")],
    ),
    "an act on an address of six": (
        [action("net:[2001:db8::1]:443", "DENY")],
        [to("2001:db8::1", verdict="DENY")],
        [(Status.CONFIRMED, "i0")],
    ),
    "a blocked connection among the acts": ([action(f"net:{A}:443", "DENY")], [to(A)], [(Status.STOPPED, "i0")]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case(name):
    events, wanted, expected = CASES[name]
    wanted = [dict(metadata) for metadata in wanted]
    if not events:
        assert [(f.status, f.intent.id) for f in correlate([], decided(*wanted))] == expected
    else:
        assert results(events, wanted) == expected


def test_an_event_that_is_in_two_files_counts_once():
    once = chain(network(A, sent=6))
    assert [finding.status for finding in correlate([once, once], decided(to(A, max_egress_bytes="10")))] == [
        Status.CORRELATED
    ]


def test_a_decision_that_came_after_the_event_says_so():
    (finding,) = correlate([chain(network(A))], decided(to(A, at="2026-11-20T10:04:00Z")))
    assert (finding.status, finding.detail) == (Status.CORRELATED, "HELM decided 240 s after it happened")


def test_traffic_is_what_says_so():
    """A receipt about traffic is compared by its destination, whatever act it claims besides."""
    disguised = network(A) | {"action_event": action("file:///w/x")["action_event"]}
    assert results([disguised], [{"path": "/w/x"}]) == [(Status.UNCORRELATED, ""), (Status.MISSING, "i0")]


def test_each_drift_of_a_receipt_has_a_name_of_its_own():
    moved = chain(action("file:///w/x", metadata={"to": "file:///w/y", "last": "2026-11-20T10:02:00Z"}))
    found = correlate([moved], [])
    assert [finding.event.what for finding in found] == ["file:///w/x", "file:///w/y"]
    assert len({drift_receipt(finding, AT)["receipt_id"] for finding in found}) == 2


def test_the_golden_receipts_against_the_golden_chain():
    """HELM's own correlator calls the blocked second event drift, because it never reads the host's verdict."""
    host = host_chain.verify((GOLDEN / "chain.json").read_bytes(), KEY.public)
    wanted = intents.read((GOLDEN / "helm_receipts.json").read_bytes(), [], accept_unsigned=True)
    found = [(finding.status, finding.intent.id if finding.intent else "") for finding in correlate([host], wanted)]
    assert found == [
        (Status.CORRELATED, "r-allow"),
        (Status.CONFIRMED, "r-deny"),
        (Status.UNCORRELATED, ""),
        (Status.MISSING, "r-unseen"),
    ]
    assert host.open_ended


def test_members_that_only_helm_has_may_be_anything():
    """Numbers with a fraction and names outside ASCII are hashed as HELM hashes them, not refused."""
    first, second = ({**to(A), "größe": 1.5, "score": jcs.Literal("0.50")}, to(B))
    assert [intent.bound for intent in decided(first, second)] == [True, False]


def test_unsigned_receipts_need_leave():
    data = (GOLDEN / "helm_receipts.json").read_bytes()
    with pytest.raises(UsageError, match="--helm-key"):
        intents.read(data, [])
    with pytest.raises(VerificationError, match="contract_mismatch"):
        intents.read(data, [HELM_KEY.public])


def test_signed_receipts_say_which_metadata_is_held():
    assert [intent.bound for intent in decided(to(A), to(B))] == [True, False]


@pytest.mark.parametrize("form", ["list", "object", "lines", "one"])
def test_the_forms_of_a_file(form):
    receipts = json.loads((GOLDEN / "v5chain.json").read_text())["receipts"]
    text = {
        "list": json.dumps(receipts),
        "object": json.dumps({"receipts": receipts}),
        "lines": "\n".join(map(json.dumps, receipts)),
        "one": json.dumps(receipts[0]),
    }[form]
    assert len(intents.read(text.encode(), [KEY.public])) == (1 if form == "one" else 3)


@pytest.mark.parametrize("text", ["", "[", "4", "[4]", '[{"timestamp": "yesterday"}]'])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(VerificationError):
        intents.read(text.encode(), [], accept_unsigned=True)


def test_drift_is_signed():
    (finding,) = correlate([chain(network(A))], [])
    receipt = drift_receipt(finding, AT)
    assert receipt["receipt_hash"] == digest(receipt | {"receipt_hash": ""})
    assert receipt["reason_code"] == "ERR_HOST_EGRESS_WITHOUT_INTENT"
    envelope = statement.sign(statement.DRIFT, receipt, KEY)
    assert statement.opened(envelope, statement.DRIFT, KEY.public) == receipt
    with pytest.raises(VerificationError):
        statement.opened(envelope, statement.DRIFT, HELM_KEY.public)
    with pytest.raises(VerificationError):
        statement.opened(envelope, statement.IN_TOTO, KEY.public)
