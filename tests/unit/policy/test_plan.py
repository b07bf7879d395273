"""The plan: what holds each kind of operation on a host, and what is missing."""

from dataclasses import dataclass

import pytest

from helm_sentry.operation import Kind
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Policy
from helm_sentry.policy.plan import BROKERS, KERNEL_TIER, LANDLOCK, PTRACE, SECCOMP, VERIFIED, Plan, make_plan, table
from helm_sentry.policy.rights import Grant, Place, lower_to_rights

BROKER = BROKERS[SECCOMP]
POLICY = load(
    "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: a, exec: {paths: [/bin/b, /bin/a]}}\n"
    "contextual:\n  - {id: c, exec: {paths: [/bin/c]}, when: 'true'}\nblock:\n  - {id: d, exec: {paths: [/bin/d]}}\n"
)


@dataclass(frozen=True)
class Machine:
    listener: bool = True
    wait_killable: bool = True
    landlock: int = 6
    ptrace: bool = True
    tracing: bool = True
    root: bool = True
    btf: bool = True


def plan(tier: str = "auto", policy: Policy = POLICY, **machine: object) -> Plan:
    return make_plan(policy, Machine(**machine), ("/lib/ld.so",), tier)


def test_the_floor_lets_the_kernel_run_what_some_rule_may_allow():
    assert plan().programs == ("/bin/a", "/bin/b", "/bin/c", "/lib/ld.so")


def test_every_kind_is_held_by_the_broker_first():
    assert {kind: layers[0] for kind, layers in plan().layers.items()} == {str(kind): BROKER for kind in Kind}


@pytest.mark.parametrize(
    ("kind", "abi", "layers"),
    [
        ("exec", 6, (BROKER, VERIFIED, LANDLOCK)),
        ("exec", 0, (BROKER, VERIFIED)),
        ("net.connect", 4, (BROKER, "landlock (tcp)")),
        ("net.bind", 3, (BROKER,)),
        ("net.send", 6, (BROKER,)),
        ("process.signal", 6, (BROKER, LANDLOCK)),
        ("process.signal", 5, (BROKER,)),
        ("process.trace", 1, (BROKER, LANDLOCK)),
        ("file.write", 1, (BROKER, LANDLOCK)),
        ("file.write", 0, (BROKER,)),
        ("file.stat", 6, (BROKER,)),
        ("kernel.mount", 6, (BROKER,)),
    ],
)
def test_layers(kind, abi, layers):
    assert plan(landlock=abi).layers[kind] == layers


def test_what_is_missing_is_said():
    assert plan().missing == plan().fatal == ()
    assert plan(landlock=0).missing_layers == ("landlock",)
    assert ["ptrace" in sentence for sentence in plan(ptrace=False).fatal] == [True]
    for tier in ("auto", SECCOMP):
        assert ["listener" in sentence for sentence in plan(tier, listener=False, tracing=False).fatal] == [True]
    assert ["--tier ptrace" in sentence for sentence in plan(PTRACE, tracing=False).fatal] == [True]
    assert VERIFIED not in plan(ptrace=False).layers["exec"]


READING = load(
    "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: n, file: {do: [stat], paths: ['/**']}}\n"
    "  - {id: d, file: {do: [read, list], paths: ['/data/**']}}\n"
)
LOWERED = lower_to_rights(READING, {"/data": Place("/data", directory=True)}, ())


def test_in_the_kernel_tier_the_kernel_holds_what_was_lowered():
    made = make_plan(READING, Machine(), (), KERNEL_TIER, LOWERED)
    assert (made.tier, made.kernel) == ("kernel", {Kind.FILE_READ, Kind.FILE_LIST})
    assert made.layers["file.read"] == ("kernel (landlock)",)
    assert made.layers["file.write"] == (BROKER, LANDLOCK)
    late = "it has an effect, which must be in the log first, and what the kernel reports is written there later"
    assert made.canonical()["held"]["file.write"] == {"by": "broker", "because": [late]}
    assert made.why_not("file.chmod") == ("landlock has nothing for it",)
    assert "| d | allow | `file.read` | kernel (landlock) |  |" in table(READING, made)


@pytest.mark.parametrize("lacking", [{"root": False}, {"btf": False}, {"landlock": 0}])
def test_without_what_the_kernel_tier_needs_it_does_not_run_and_nothing_is_held(lacking):
    made = make_plan(READING, Machine(**lacking), (), KERNEL_TIER, LOWERED, (Grant("/data", frozenset()),))
    assert not made.kernel
    assert not made.grants
    assert ["the kernel tier needs" in sentence for sentence in made.fatal] == [True]


def test_as_plain_data():
    data = plan(landlock=0).canonical()
    assert data["layers"]["exec"] == [BROKER, VERIFIED]
    assert data["programs"][0] == "/bin/a"


@pytest.mark.parametrize(
    ("asked", "listener", "tracing", "tier"),
    [
        ("auto", True, True, SECCOMP),
        ("auto", False, True, PTRACE),
        ("auto", False, False, SECCOMP),
        ("seccomp", False, True, SECCOMP),
        ("ptrace", True, True, PTRACE),
    ],
)
def test_the_tier_is_the_one_asked_for_or_the_quickest_there_is(asked, listener, tracing, tier):
    made = plan(asked, listener=listener, tracing=tracing)
    assert made.tier == made.canonical()["tier"] == tier
    assert {layers[0] for layers in made.layers.values()} == {BROKERS[tier]}


def test_a_tracer_does_not_let_an_agent_have_a_listener():
    """It would be asked first, and could have the kernel carry out what the tracer never sees."""
    text = "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: s, kernel: [seccomp]}\n"
    assert plan(SECCOMP, load(text)).fatal == ()
    assert ["kernel.seccomp" in sentence for sentence in plan(PTRACE, load(text)).fatal] == [True]
