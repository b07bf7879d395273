"""Questions: two words become an operation, and the answer names the rules."""

import pytest

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import UsageError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.question import considered, context, operation_of, remedies

POLICY = """schema: helm-sentry/policy/v1
name: p
agent: {role: reader}
allow:
  - {id: data, file: {do: [read], paths: [/srv/**]}}
  - {id: more, file: {do: [read], paths: [/srv/a]}}
  - {id: other, file: {do: [read], paths: [/var/x]}}
  - {id: tools, exec: {paths: [/usr/bin/git]}}
  - {id: github, programs: [/usr/bin/git], connect: {hosts: [github.com], ports: [443]}}
block:
  - {id: secret, file: {do: [read], paths: [/srv/secret]}}
contextual:
  - id: books
    file: {do: [read], paths: [/books/**]}
    when: agent.role == "payments"
"""


@pytest.mark.parametrize(
    ("kind", "target", "operation"),
    [
        ("file.read", "/a/", Operation(Kind.FILE_READ, path="/a")),
        ("read", "/", Operation(Kind.FILE_READ, path="/")),
        ("delete", "/a", Operation(Kind.FILE_DELETE, path="/a", directory=True)),
        ("run", "/bin/x", Operation(Kind.EXEC, path="/bin/x")),
        ("connect", "10.0.0.1:443", Operation(Kind.NET_CONNECT, address="10.0.0.1", port=443, protocol="tcp")),
        ("send", "[::1]:53/udp", Operation(Kind.NET_SEND, address="::1", port=53, protocol="udp")),
        (
            "connect",
            "API.example.com:443",
            Operation(Kind.NET_CONNECT, address="192.0.2.1", port=443, protocol="tcp", hosts=("api.example.com",)),
        ),
        ("unix.connect", "/run/x", Operation(Kind.UNIX_CONNECT, path="/run/x")),
        ("kernel.mount", "mount", Operation(Kind.KERNEL_MOUNT, name="mount")),
    ],
)
def test_two_words_are_an_operation(kind: str, target: str, operation: Operation) -> None:
    assert operation_of(kind, target) == operation


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("raed", "/a", "did you mean `read`"),
        ("read", "a", "not absolute"),
        ("connect", "host", "HOST:PORT"),
        ("connect", "host:x", "HOST:PORT"),
        ("connect", ":1", "HOST:PORT"),
        ("connect", "host:1/icmp", "`tcp` or `udp`"),
        ("connect", "h_st!:1", "not a host name"),
        ("connect", "*.host:1", "not one host"),
    ],
)
def test_what_is_no_question_is_refused(kind: str, target: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        operation_of(kind, target)


def test_the_rules_about_the_kind_are_named() -> None:
    policy = load(POLICY)
    found = considered(policy, operation_of("read", "/srv/secret"), context(policy))
    assert {each.rule.id: each.says is not None for each in found} == {
        "data": True,
        "more": False,
        "other": False,
        "secret": True,
        "books": False,
    }


def answer(kind: str, target: str, **who: str) -> Decision:
    policy = load(POLICY)
    return decide(compile_policy(policy), operation_of(kind, target), context(policy, **who))


def test_who_asks_matters() -> None:
    assert answer("read", "/books/a").reason is Reason.CONDITION
    assert answer("read", "/books/a", role="payments") == Decision(Verdict.ALLOW, Reason.RULE, "books")
    assert answer("connect", "github.com:443").reason is Reason.DEFAULT
    assert answer("connect", "github.com:443", program="/usr/bin/git").rule == "github"


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("read", "/srv/b", "remove or narrow rule `data`"),
        ("read", "/none", "id: read-none"),
        ("read", "/srv/secret", "no allow rule helps against rule `secret`"),
        ("read", "/books/a", "condition of rule `books`"),
        ("kernel.abi", "x", "no rule can allow it"),
    ],
)
def test_what_would_change_it(kind: str, target: str, words: str) -> None:
    assert words in "\n".join(remedies(operation_of(kind, target), answer(kind, target)))
