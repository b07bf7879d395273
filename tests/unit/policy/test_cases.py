"""Cases: expectations beside a policy, and the ones that are shipped."""

from pathlib import Path

import pytest

from helm_sentry.errors import PolicyError
from helm_sentry.policy.cases import run_cases
from helm_sentry.policy.loader import shipped_packs

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "policies").glob("**/*.cases.yaml"))
POLICY = """schema: helm-sentry/policy/v1
name: p
allow:
  - {id: work, file: {do: [read], paths: ['${workspace}/**']}}
  - {id: net, connect: {hosts: [a.b], ports: [443]}}
  - {id: own, connect: {own: true}}
contextual:
  - {id: pay, file: {do: [read], paths: [/pay]}, when: agent.role == "payments", otherwise: escalate}
"""


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)

    def run(text):
        return run_cases("schema: helm-sentry/cases/v1\npolicy: ./p.yaml\n" + text, str(tmp_path / "p.cases.yaml"))

    return run


def test_what_is_as_wanted(cases) -> None:
    outcomes = cases(
        """cases:
  - {do: file.read, target: '${workspace}/a', want: allow, rule: work}
  - {do: read, target: /etc/passwd, want: deny, rule: default}
  - {do: connect, target: 'a.b:443', want: allow}
  - {do: connect, target: '127.0.0.1:9', own: true, want: allow, rule: own}
  - {do: read, target: /pay, want: escalate}
  - {do: read, target: /pay, as: payments, by: /bin/x, want: allow, rule: pay}
"""
    )
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    assert len(outcomes) == 6


def test_what_is_not_says_so_with_its_place(cases) -> None:
    (wrong, rule) = cases(
        "variables: {workspace: /w}\ncases:\n"
        "  - {note: mine, do: read, target: /w/a, want: deny}\n  - {do: read, target: /w/a, want: allow, rule: net}\n"
    )
    assert not wrong.passed and not rule.passed
    assert str(wrong).endswith("p.cases.yaml:5:5: file.read /w/a (mine): wanted deny, got allow by `work`")
    assert "wanted allow by `net`, got allow by `work`" in str(rule)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cases: [{do: raed, target: /a, want: deny}]", "did you mean `read`"),
        ("cases: [{do: read, target: a, want: deny}]", "not absolute"),
        ("cases: [{do: read, target: /a, want: maybe}]", "verdict"),
        ("cases: [{do: read, want: deny}]", "`target` is missing"),
        ("cases: [{do: read, target: /a, want: deny, x: y}]", "unknown key `x`"),
        ("", "`cases` is missing"),
    ],
)
def test_mistakes_have_a_place(cases, text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        cases(text)
    assert caught.value.line


def test_another_schema_is_refused() -> None:
    with pytest.raises(PolicyError, match="unknown schema"):
        run_cases("schema: x\npolicy: base\ncases: []", "c.yaml")


def test_every_shipped_policy_has_cases() -> None:
    named = {path.name.removesuffix(".cases.yaml") for path in SHIPPED}
    assert named == {*shipped_packs(), *shipped_packs().presets}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_cases(path: Path) -> None:
    outcomes = run_cases(path.read_text(), str(path))
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    assert {outcome.case.want for outcome in outcomes} >= {"ALLOW", "DENY"}
    assert len(outcomes) >= 8
