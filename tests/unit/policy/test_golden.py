"""Golden files: what every kind of rule means and decides, and what every mistake in a policy file is answered.

`tests/golden/policies/rules/NAME.yaml` with NAME.json, its effective rules; its lines `#> KIND TARGET KEY=VALUE… VERDICT
REASON RULE` are decisions. `errors/NAME.yaml` or .json with its line in errors/expected. HELM_SENTRY_GOLDEN=write
writes what the code says now; read the difference before you keep it.
"""

import ast
import json
import os
import re
from pathlib import Path

import pytest

from helm_sentry.errors import PolicyError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import condition, document, fields, loader, pattern, rules, values, variables
from helm_sentry.policy.context import Context, Process
from helm_sentry.policy.document import Place
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load, read_text
from helm_sentry.policy.model import Policy
from tests.unit.policy.test_loader import PACKS, RUN

GOLDEN = Path(__file__).resolve().parents[2] / "golden/policies"
RULES = sorted((GOLDEN / "rules").glob("*.yaml"))
ERRORS = sorted(path for path in (GOLDEN / "errors").iterdir() if path.suffix)
EXPECTED = GOLDEN / "errors/expected"
WRITE = os.environ.get("HELM_SENTRY_GOLDEN") == "write"


def effective(path: Path) -> Policy:
    return load(path.read_text(), str(path), RUN, PACKS)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rule_means_what_it_meant(path):
    policy = effective(path)
    text = json.dumps(policy.canonical(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    golden = path.with_suffix(".json")
    if WRITE:
        golden.write_text(text)
    assert golden.read_text() == text
    assert load(text, "policy.json") == policy


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rule_decides_as_it_did(path):
    policy = effective(path)
    lines = re.findall(r"^#> (.*)$", path.read_text(), re.MULTILINE)
    assert any(" ALLOW " in line for line in lines)
    assert any(" DENY " in line or " ESCALATE " in line for line in lines)
    for line in lines:
        *asked, verdict, reason, rule = line.split()
        decision = decide(compile_policy(policy), *asking(policy, asked))
        assert (str(decision.verdict), str(decision.reason), decision.rule) == (verdict, reason, rule), line


def asking(policy: Policy, words: list[str]) -> tuple[Operation, Context]:
    kind, target, *rest = words
    given = dict(word.partition("=")[::2] for word in rest)
    operation: dict[str, object] = {"path": target} if target.startswith("/") else {"name": target}
    if kind.startswith("net.") and ":" in target:
        address, _, port = target.rpartition(":")
        operation = {"address": address, "port": int(port), "protocol": given.get("protocol", "tcp")}
    for name in ("argv", "environment", "hosts"):
        operation |= {name: tuple(given[name].split(","))} if name in given else {}
    operation |= {name: True for name in ("own", "directory") if name in given}
    ancestry = tuple(given["by"].split(",")) if "by" in given else ()
    spent = frozenset(given["spent"].split(",")) if "spent" in given else frozenset()
    context = Context(policy.agent, Process(ancestry[-1] if ancestry else "", ancestry), spent=spent)
    return Operation(Kind(kind), **operation), context


def test_every_matcher_and_every_key_has_a_golden_file():
    written = " ".join(path.read_text() for path in RULES)
    for key in (*rules.MATCHERS, *rules.CONDITIONAL, "limit", "programs", "argv", "environment", "own", "per"):
        assert f"{key}:" in written, key


def answered(path: Path) -> str:
    try:
        load(read_text(str(path), Place("")), str(path), RUN | {"odd": "/\udcff"}, PACKS)
    except PolicyError as error:
        shown = str(error).replace(f"{GOLDEN}/errors/", "").replace(f"{GOLDEN}/", "")
        return shown if shown.startswith(path.name) else f"{path.name}: {shown}"
    raise AssertionError(f"{path.name} loads")


def test_every_mistake_is_answered_as_it_was():
    lines = [answered(path) for path in ERRORS]
    if WRITE:
        EXPECTED.write_text("".join(f"{line}\n" for line in lines))
    assert EXPECTED.read_text().splitlines() == lines


# Of what these files say, the rest cannot be put into a small file, or concerns the file system.
ELSEWHERE = {
    "larger than": "test_document.py",
    "packs there are": "test_loader.py",
    "condition: ": "test_condition.py",
}


@pytest.mark.parametrize(
    "module",
    [condition, document, fields, loader, pattern, rules, values, variables],
    ids=lambda module: module.__name__,
)
def test_every_error_of_the_loader_is_in_a_golden_file(module):
    answers = EXPECTED.read_text()
    tree = ast.parse(Path(module.__file__).read_text())
    for call in (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
        name = ast.unparse(call.func)
        if not call.args or not (name.endswith((".error", "ValueError", "PolicyError"))):
            continue
        words = said(call.args[0])
        if words and not any(start in words for start in ELSEWHERE):
            wanted = ".*".join(re.escape(part) for part in words.split("\0"))
            assert re.search(wanted, answers), f"no golden file for line {call.lineno}: {words!r}"


def said(node: ast.expr) -> str:
    """The fixed words of a message, with NUL for what is filled in."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(said(part) if isinstance(part, ast.Constant) else "\0" for part in parts)
        case ast.BinOp(left, ast.Add(), right):
            return (said(left) or "\0") + (said(right) or "\0")
    return ""
