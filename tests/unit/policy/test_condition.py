"""Conditions: what they may speak of, what is refused at load, and that what an agent writes cannot make one slow."""

import subprocess
import sys
import time

import pytest

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import condition
from helm_sentry.policy.condition import MAX_LENGTH, VARIABLES, ConditionError, compile_condition
from helm_sentry.policy.context import Context, Process, Run

EXEC = Operation(
    Kind.EXEC, path="/bin/a\udcff", address="::1", port=443, protocol="tcp", hosts=("h", "i"), own=True, directory=True,
    argv=("a", "b\udcff"), size=7, name="netlink",
)  # fmt: skip
CONTEXT = Context(
    {"name": "n", "role": "r", "team": "t"}, Process("/bin/p", ("/bin/o", "/bin/p"), 1000),
    Run(90_000_000, {Kind.EXEC: 4}, 11), 1_700_000_000_000_000,
)  # fmt: skip


def holds(text: str, operation: Operation = EXEC, context: Context = CONTEXT) -> bool:
    return compile_condition(text).holds(operation, context)


MEANINGS = {
    "agent.name": 'agent.name == "n"',
    "agent.role": 'agent.role == "r"',
    "agent.labels": 'agent.labels.team == "t" && agent.labels["role"] == "r"',
    "op.kind": 'op.kind == "exec"',
    "op.path": 'op.path == "/bin/a\ufffd"',
    "op.directory": "op.directory",
    "op.argv": 'op.argv == ["a", "b\ufffd"]',
    "op.host": 'op.host == "h"',
    "op.hosts": 'op.hosts == ["h", "i"]',
    "op.address": 'op.address == "::1"',
    "op.port": "op.port == 443",
    "op.protocol": 'op.protocol == "tcp"',
    "op.own": "op.own",
    "op.size": "op.size == 7",
    "op.name": 'op.name == "netlink"',
    "process.exe": 'process.exe == "/bin/p"',
    "process.ancestry": 'process.ancestry == ["/bin/o", "/bin/p"]',
    "process.uid": "process.uid == 1000",
    "run.elapsed": 'run.elapsed == duration("90s")',
    "run.bytes_sent": "run.bytes_sent == 11",
    "time": 'time == timestamp("2023-11-14T22:13:20Z")',
    "run.counts": "run.counts.exec == 4 && run.counts.net.connect == 0",
}


def test_every_name_has_a_case():
    assert {name if "counts" not in name else "run.counts" for name in VARIABLES} == set(MEANINGS)


@pytest.mark.parametrize("text", MEANINGS.values(), ids=MEANINGS)
def test_names_mean_what_they_say(text):
    assert holds(text)
    assert not holds(f"!({text})")


def test_every_kind_is_counted():
    for kind in Kind:
        assert holds(f"run.counts.{kind} == 3", context=Context(run=Run(counts={kind: 3})))


def test_what_is_not_known_is_empty():
    nothing = 'agent.name == "" && agent.role == "" && op.host == "" && process.exe == "" && process.uid == -1'
    assert holds(nothing, Operation(Kind.EXEC), Context())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("op.argv[2] == 'x'", "index"),
        ("1 / (op.port - 443) == 1", "divide"),
        ("agent.labels.nothing == ''", "key"),
        ("op.path.matches(op.argv[0] + '[')", "regular expression"),
        ("op.port + 9223372036854775807 > 0", "overflow"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_with_its_reason(text, reason):
    with pytest.raises(ConditionError) as caught:
        holds(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_cel_cannot_hold_is_an_error():
    with pytest.raises(ConditionError):
        holds("op.size > 1", Operation(Kind.NET_SEND, size=1 << 64))


def test_steps_are_bounded():
    """Four loops within each other over 256 arguments would be 4,294,967,296 steps."""
    slow = "op.argv.all(a, op.argv.all(b, op.argv.all(c, op.argv.all(d, a == b && c == d))))"
    began = time.monotonic()
    with pytest.raises(ConditionError) as caught:
        holds(slow, Operation(Kind.EXEC, argv=("a",) * 256))
    assert "budget" in str(caught.value)
    assert time.monotonic() - began < 1


def test_expressions_that_other_engines_choke_on_are_quick():
    """(a+)+$ takes time exponential in the text where matching goes back."""
    began = time.monotonic()
    assert not holds("op.path.matches('^(a+)+$')", Operation(Kind.FILE_READ, path="a" * 4096 + "!"))
    assert time.monotonic() - began < 1


def test_length_is_bounded():
    assert compile_condition("true" + " " * (MAX_LENGTH - 4))
    with pytest.raises(ValueError, match="longer than 4096"):
        compile_condition("true" + " " * (MAX_LENGTH - 3))


def test_an_engine_message_without_a_place_is_passed_on():
    assert condition._explained("INTERNAL: out of memory [INTERNAL]") == "condition: out of memory"


def test_policies_without_conditions_do_not_load_the_engine():
    program = (
        "import sys; from helm_sentry.policy.loader import load_file; from helm_sentry.policy.engine import compile_policy\n"
        "run = dict.fromkeys(('workspace', 'home', 'tmp', 'program'), '/w') | {'user': 'u'}\n"
        "compile_policy(load_file('default', run)); print('cel_expr_python' in sys.modules)\n"
        "from helm_sentry.policy.condition import compile_condition; compile_condition('true')\n"
        "print('cel_expr_python' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
