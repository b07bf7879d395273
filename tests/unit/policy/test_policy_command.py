"""`helm-sentry policy …` as a person calls it."""

import json

import pytest
from click.testing import CliRunner, Result

from helm_sentry.cli.main import main
from helm_sentry.policy.schema import json_schema
from tests.unit.policy.runs import asked, log, on

HEAD = "schema: helm-sentry/policy/v1\nname: p\n"
GOOD = HEAD + "allow: [{id: data, file: {do: [read], paths: [/srv/data/**]}}]\n"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "p.yaml").write_text(GOOD)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["policy", *words], catch_exceptions=False)

    return run


@pytest.fixture
def a_run(tmp_path):
    directory = tmp_path / "run"
    (directory / "receipts").mkdir(parents=True)
    records = [asked("openat", on("file.read", "/srv/data/a")), asked("openat", on("file.read", "/etc/shadow"))]
    (directory / "audit.jsonl").write_bytes(b"".join(log(*records, variables={})))
    effective = {"schema": "helm-sentry/effective-policy/v1", "name": "old"}
    (directory / "policy.json").write_text(json.dumps(effective) + "\n")
    for name in ("run.json", "plan.json", "public.key", "receipts/denials.jsonl", "tree.jsonl", "checkpoints"):
        (directory / name).write_text("")
    return str(directory)


def test_check_of_a_good_policy(call) -> None:
    result = call("check", "./p.yaml")
    assert (result.exit_code, result.output) == (0, "./p.yaml: ok\n")


def test_check_of_a_bad_one(call, tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text(HEAD + "allow: [{id: a, file: {do: [reed], paths: [/a]}}]\nlimts: {}\n")
    result = call("check", "./bad.yaml")
    assert result.exit_code == 2
    assert result.output.splitlines() == [
        "./bad.yaml:4:1: unknown key `limts`; did you mean `limits`?",
        "./bad.yaml:3:29: unknown verb `reed`; did you mean `read`?",
    ]
    assert len(json.loads(call("check", "./bad.yaml", "--json").output)["errors"]) == 2


def test_check_of_a_wide_one(call, tmp_path) -> None:
    (tmp_path / "wide.yaml").write_text(HEAD + "allow: [{id: a, file: {do: [read], paths: ['${home}/**']}}]\n")
    assert "warning: rule `a`: wider than it looks" in call("check", "./wide.yaml").output
    assert (call("check", "./wide.yaml").exit_code, call("check", "./wide.yaml", "--strict").exit_code) == (0, 1)
    assert json.loads(call("check", "./wide.yaml", "--json").output)["warnings"]


def test_check_of_a_pack(call) -> None:
    assert call("check", "base").exit_code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["read", "/srv/data/a"], "ALLOW  read /srv/data/a: allowed by rule `data`\n  decides  allow data", id="allowed"),
        pytest.param(["read", "/srv/x"], "DENY  read /srv/x: no rule allows it", id="denied"),
        pytest.param(["read", "/srv/x"], "    - id: read-srv-x", id="suggested"),
        pytest.param(["read", "/srv/x"], "2 other rules are about file.read and do not match", id="others"),
    ],
)  # fmt: skip
def test_explain(call, words: list[str], expected: str) -> None:
    result = call("explain", *words, "--policy", "./p.yaml")
    assert result.exit_code == 0
    assert expected in result.output


def test_explain_as_somebody(call, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text(
        HEAD + "contextual: [{id: a, file: {do: [read], paths: [/a]}, when: agent.role == 'boss'}]\n"
    )
    said = json.loads(call("explain", "read", "/a", "--policy", "./c.yaml", "--json").output)
    assert (said["verdict"], said["rule"]) == ("DENY", "a")
    said = json.loads(call("explain", "read", "/a", "--policy", "./c.yaml", "--json", "--as", "boss").output)
    assert (said["verdict"], said["rule"]) == ("ALLOW", "a")


def test_explain_a_record(call, a_run) -> None:
    result = call("explain", "--record", "2", "--run", a_run)
    assert "DENY  read /etc/shadow: no rule allows it" in result.output
    assert call("explain", "--record", "0", "--run", a_run).exit_code == 2


@pytest.mark.parametrize("words", [[], ["read"], ["--record", "1"]], ids=["nothing", "half", "no run"])
def test_explain_needs_something_to_explain(call, words: list[str]) -> None:
    assert call("explain", *words).exit_code == 2


def test_plan(call) -> None:
    rows = json.loads(call("plan", "./p.yaml", "--json").output)["rules"]
    assert rows["data"]["kinds"] == ["file.read", "file.stat"]
    assert rows["data"]["layers"][0] == "supervisor (seccomp)"
    assert "sentry/state" in call("plan", "./p.yaml").output


def test_cases(call, tmp_path) -> None:
    cases = tmp_path / "p.cases.yaml"
    cases.write_text(
        "schema: helm-sentry/cases/v1\npolicy: ./p.yaml\ncases:\n  - {do: read, target: /srv/data/a, want: allow}\n"
    )
    assert call("test", str(cases)).output == "1 of 1 cases as wanted\n"
    cases.write_text(cases.read_text().replace("want: allow", "want: deny"))
    result = call("test", str(cases))
    assert result.exit_code == 1
    assert "wanted deny, got allow by `data`" in result.output
    assert json.loads(call("test", str(cases), "--json").output)["cases"] == 1


def test_diff(call, tmp_path, a_run) -> None:
    (tmp_path / "q.yaml").write_text(GOOD.replace("/srv/data/**", "/srv/other").replace("name: p", "name: q"))
    result = call("diff", "./p.yaml", "./q.yaml", "--log", a_run)
    assert result.exit_code == 1
    assert (
        "becomes denied: file.read /srv/data/a (was `data`, now `default`; 1 time in the log, first in record 1)"
        in result.output
    )
    assert "becomes allowed: file.read /srv/other (was `default`, now `data`; by its rules)" in result.output
    same = call("diff", "./p.yaml", "./p.yaml")
    assert (same.exit_code, same.output) == (0, "")
    assert json.loads(call("diff", "./p.yaml", "./q.yaml", "--json").output)["added"] == ["data"]


def test_replay(call, a_run) -> None:
    result = call("replay", "./p.yaml", a_run)
    assert result.exit_code == 1
    assert "becomes allowed: file.read /srv/data/a" in result.output
    assert result.output.endswith("2 decisions, 1 different\n")
    assert json.loads(call("replay", "base", a_run, "--json").output) == {"decisions": 2, "changes": []}


def test_show(call) -> None:
    assert json.loads(call("show", "./p.yaml").output)["allow"][0]["id"] == "data"


def test_schema(call) -> None:
    assert json.loads(call("schema").output) == json_schema()
