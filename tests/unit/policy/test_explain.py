"""Sentences and suggestions: printable whatever the names hold, and suggestions that work."""

import pytest
from hypothesis import assume, example, given

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.explain import sentence, suggestion
from helm_sentry.policy.loader import load
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: test\n"


def net(kind: str, **fields: object) -> Operation:
    return Operation(Kind(kind), **{"address": "203.0.113.9", "port": 443, "protocol": "tcp"} | fields)


@pytest.mark.parametrize(
    ("operation", "lines"),
    [
        (Operation(Kind.FILE_READ, path="/data/x"), "id: read-data-x\n    file: {do: [read], paths: [/data/x]}"),
        (Operation(Kind.FILE_READ, path="/a b"), "id: read-a-b\n    file: {do: [read], paths: ['/a b']}"),
        (Operation(Kind.FILE_READ, path="/it's"), "id: read-it-s\n    file: {do: [read], paths: ['/it''s']}"),
        (Operation(Kind.FILE_READ, path="/*[x]"), "id: read-x\n    file: {do: [read], paths: ['/\\*\\[x]']}"),
        (Operation(Kind.FILE_READ, path="/a\n\x1b[1m\udcff"), "paths: ['/a\\x0a\\x1b\\[1m\\xff']}"),
        (Operation(Kind.FILE_READ, path="/${home}"), "paths: ['/$${home}']}"),
        (Operation(Kind.FILE_DELETE, path="/"), "id: delete\n    file: {do: [delete], paths: [/]}"),
        (Operation(Kind.EXEC, path="/usr/bin/git"), "id: exec-usr-bin-git\n    exec: {paths: [/usr/bin/git]}"),
        (Operation(Kind.UNIX_CONNECT, path="/run/s"), "id: connect-run-s\n    unix: {do: [connect], paths: [/run/s]}"),
        (
            net("net.connect"),
            "id: connect-203-0-113-9\n    connect: {addresses: ['203.0.113.9'], ports: [443], protocols: [tcp]}",
        ),
        (
            net("net.send", address="2001:db8::1", port=53, protocol="udp"),
            "id: send-2001-db8-1\n    connect: {addresses: ['2001:db8::1'], ports: [53], protocols: [udp]}",
        ),
        (
            net("net.connect", hosts=("api.example.com",)),
            "id: connect-api-example-com\n    connect: {hosts: [api.example.com], ports: [443], protocols: [tcp]}",
        ),
        (net("net.connect", address="127.0.0.1", own=True), "connect: {own: true}"),
        (
            net("net.bind", address="127.0.0.1", port=0),
            "id: bind-127-0-0-1\n    bind: {addresses: ['127.0.0.1'], ports: [0], protocols: [tcp]}",
        ),
        (Operation(Kind.NET_SOCKET, name="netlink"), "id: socket-netlink\n    socket: {families: [netlink]}"),
        (Operation(Kind.KERNEL_IO_URING, name="io_uring_setup"), "id: io-uring-io-uring-setup\n    kernel: [io_uring]"),
    ],
)
def test_suggestion(operation, lines):
    assert lines in suggestion(operation)
    assert suggestion(operation).startswith("allow:\n  - id: ")


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(Operation(Kind.PROCESS_SIGNAL, pid=1, name="SIGKILL"), id="signal"),
        pytest.param(Operation(Kind.PROCESS_TRACE, pid=1), id="trace"),
        pytest.param(Operation(Kind.KERNEL_UNKNOWN, name="999"), id="unknown syscall"),
        pytest.param(Operation(Kind.FILE_WRITE, path="pipe:[7]"), id="no path"),
        pytest.param(Operation(Kind.UNIX_CONNECT, name="@abstract"), id="abstract socket"),
        pytest.param(Operation(Kind.FILE_READ, path="/a\0b"), id="no name"),
        pytest.param(Operation(Kind.FILE_READ, path="/a/../b"), id="not canonical"),
        pytest.param(Operation(Kind.NET_SOCKET, name="inet/3/1"), id="raw socket"),
        pytest.param(net("net.connect", protocol="icmp"), id="protocol"),
        pytest.param(net("net.connect", address="nonsense"), id="address"),
    ],
)
def test_no_suggestion_where_no_rule_can_help(operation):
    assert suggestion(operation) == ""


@given(strategies.operations())
@example(Operation(Kind.FILE_READ, path="/" + "\udcff" * 255))
@example(net("net.connect", address="fe80::1%3"))
def test_suggestion_allows_what_was_denied(operation):
    text = suggestion(operation)
    assume(text)
    assert text.replace("\n", "").isprintable()
    policy = compile_policy(load(HEAD + text, variables={"home": "/home/u"}, packs={}))
    assert decide(policy, operation).verdict is Verdict.ALLOW


@given(strategies.paths().filter(lambda path: "//" not in path))
def test_every_canonical_path_has_a_suggestion(path):
    assert suggestion(Operation(Kind.FILE_READ, path=path))


DENIED = Decision(Verdict.DENY, Reason.DEFAULT)


@pytest.mark.parametrize(
    ("operation", "decision", "text"),
    [
        (
            Operation(Kind.FILE_READ, path="/home/u/.ssh/id_rsa"),
            DENIED,
            "read /home/u/.ssh/id_rsa: no rule allows it",
        ),
        (
            Operation(Kind.FILE_WRITE, path="/etc/passwd"),
            Decision(Verdict.DENY, Reason.BLOCK, "passwd"),
            "write /etc/passwd: refused by block rule `passwd`",
        ),
        (
            Operation(Kind.EXEC, path="/usr/bin/git"),
            Decision(Verdict.ALLOW, Reason.RULE, "git/programs"),
            "run /usr/bin/git: allowed by rule `git/programs`",
        ),
        (net("net.connect"), DENIED, "connect to 203.0.113.9:443: no rule allows it"),
        (
            net("net.connect", hosts=("api.example.com",)),
            Decision(Verdict.ESCALATE, Reason.CONDITION, "api"),
            "connect to api.example.com (203.0.113.9:443): refused, rule `api` asks for approval and nobody gave it",
        ),
        (net("net.send", address="::1", port=53), DENIED, "send to [::1]:53: no rule allows it"),
        (Operation(Kind.NET_SOCKET, name="netlink"), DENIED, "open a socket of family netlink: no rule allows it"),
        (Operation(Kind.UNIX_CONNECT, name="@x"), DENIED, "connect to @x: no rule allows it"),
        (
            Operation(Kind.PROCESS_SIGNAL, pid=7, name="SIGKILL"),
            Decision(Verdict.DENY, Reason.BUILTIN),
            "signal SIGKILL 7: refused by the supervisor itself, no rule can allow it",
        ),
        (
            Operation(Kind.PROCESS_SIGNAL, pid=7, name="SIGTERM"),
            Decision(Verdict.ALLOW, Reason.BUILTIN),
            "signal SIGTERM 7: allowed by the supervisor itself",
        ),
        (Operation(Kind.KERNEL_MOUNT, name="mount"), DENIED, "kernel.mount mount: no rule allows it"),
        (
            Operation(Kind.FILE_READ, path="/a\n\x1b]0;x\x07\\\udcff"),
            DENIED,
            r"read /a\x0a\x1b]0;x\x07\\\xff: no rule allows it",
        ),
    ],
)
def test_sentence(operation, decision, text):
    assert sentence(operation, decision) == text


@given(strategies.operations())
def test_sentence_is_one_printable_line(operation):
    for reason in Reason:
        assert sentence(operation, Decision(Verdict.DENY, reason, "rule")).isprintable()


def test_a_name_that_no_rule_can_state_is_passed_over():
    odd = net("net.connect", hosts=("*.example.com", "api.example.com"))
    assert "hosts: [api.example.com]" in suggestion(odd)
    for name in ("*.example.com", "h!"):
        assert "addresses: ['203.0.113.9']" in suggestion(net("net.connect", hosts=(name,)))


def test_kinds_that_no_rule_can_allow_have_no_suggestion():
    assert suggestion(Operation(Kind.PROCESS_SIGNAL, pid=1, name="SIGTERM")) == ""
    assert suggestion(net("net.connect", protocol="")) == ""


def test_a_path_that_is_not_canonical_has_no_suggestion():
    assert suggestion(Operation(Kind.FILE_READ, path="/a//b")) == ""
