"""The policy reference says what the loader does: its examples load, and nothing that can be written is left out."""

import re
import runpy
import sys
from pathlib import Path

import pytest

import helm_sentry
from helm_sentry.abi import syscalls
from helm_sentry.errors import PolicyError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import loader, pattern, reference, rules, values
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import FILE_KINDS, KERNEL_KINDS, UNDECIDABLE_KINDS, UNIX_KINDS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs/policy-reference.md").read_text()
BLOCKS = re.findall(r"^```(\S+)( \S+)?\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
HEAD = "schema: helm-sentry/policy/v1\nname: example\n"
RUN = {"workspace": "/w", "home": "/home/u", "tmp": "/tmp/run", "user": "u", "program": "/usr/bin/agent"}


def blocks(language: str, word: str = "") -> list[str]:
    return [text for name, rest, text in BLOCKS if (name, rest.strip()) == (language, word)]


def loaded(text: str):
    return load(text if text.startswith("schema:") else HEAD + text, "reference.yaml", RUN)


def words() -> set[str]:
    """Everything that stands in backticks, word by word, outside of blocks."""
    prose = re.sub(r"^```.*?^```$", "", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`|^\*\*(\w+)\.\*\*", prose, re.MULTILINE)
    return {word for span in spans for word in re.findall(r"[a-z_/.-]+", "".join(span))}


def test_the_page_has_examples_of_each_sort():
    assert [len(blocks("yaml")), len(blocks("yaml", "refused")), len(blocks("decisions"))] == [5, 1, 1]
    assert len(BLOCKS) == 7


@pytest.mark.parametrize("text", blocks("yaml"))
def test_examples_load(text):
    policy = compile_policy(loaded(text)).policy
    assert policy.grants


def test_the_tables_are_current():
    assert reference.fill(DOCUMENT) == DOCUMENT, "run: python -m helm_sentry.policy.reference docs/policy-reference.md"
    assert set(re.findall("from the schema: ([a-z-]+) ", DOCUMENT)) >= {
        "file-keys",
        "rule",
        "contextual",
        "verbs",
        "names",
    }


def test_a_stale_table_is_made_anew():
    stale = DOCUMENT.replace("| `stat` |", "| `start` |").replace("| `agent.role` | string |", "| `agent.role` | int |")
    assert stale != DOCUMENT
    assert reference.fill(stale) == DOCUMENT


def test_the_command_writes_the_page(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- from the schema: limit -->\nold\n<!-- end -->\nz\n")
    monkeypatch.setattr(sys, "argv", ["reference", str(page)])
    monkeypatch.delitem(sys.modules, "helm_sentry.policy.reference")
    runpy.run_module("helm_sentry.policy.reference", run_name="__main__")
    assert "| `count` | number, required |" in page.read_text()
    assert "old" not in page.read_text()


@pytest.mark.parametrize("text", blocks("yaml", "refused"))
def test_refused_examples_are_refused_in_these_words(text):
    message = text.splitlines()[-1].removeprefix("# ")
    with pytest.raises(PolicyError) as caught:
        loaded(text)
    assert caught.value.message == message


@pytest.mark.parametrize("line", blocks("decisions")[0].splitlines())
def test_decisions_are_as_the_page_says(line):
    kind, path, verdict, rule = line.split()
    moves = kind in ("file.rename", "file.delete", "file.create")
    decision = decide(compile_policy(loaded(blocks("yaml")[0])), Operation(Kind(kind), path=path, directory=moves))
    assert (str(decision.verdict), decision.rule) == (verdict, rule)


def test_one_example_uses_every_matcher():
    used = {key for text in blocks("yaml") for rule in loaded(text).rules for key in rule.match.canonical()}
    assert used == set(rules.MATCHERS)


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(set(loader._KEYS), id="keys of the file"),
        pytest.param(set(rules.MATCHERS), id="matchers"),
        pytest.param(set(FILE_KINDS) | set(UNIX_KINDS) | {"all"}, id="verbs"),
        pytest.param(set(rules._LIMITS), id="limits"),
        pytest.param(set(RUN), id="variables of the run"),
        pytest.param(set(values._NETWORK_WORDS) | {"tcp", "udp", "true"}, id="words of network rules"),
        pytest.param({"pass", "set", "id", "note"}, id="further keys"),
        pytest.param({kind.partition(".")[2] for kind in UNDECIDABLE_KINDS}, id="kinds that are always denied"),
    ],
)
def test_nothing_is_left_out(known):
    assert known - words() == set()


def sections(name: str) -> list[str]:
    start, end = rf"^(?:## |\*\*){name}(?:\n|\.\*\*)", r"^## |^\*\*\w+\.\*\*|\Z"
    return re.findall(rf"{start}(.*?)(?={end})", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_keys_of_every_matcher_are_named_in_its_section():
    source = Path(rules.__file__).read_text()
    tables = re.findall(r'Fields\(node, "`(\w+)`", \(([^)]*)\)\)', source)
    assert {name for name, _ in tables} >= {"file", "exec", "connect", "bind", "unix", "socket", "environment"}
    for name, keys in tables:
        (section,) = sections(name)
        for key in re.findall(r'"(\w+)"', keys):
            assert re.search(rf"`{key}\b", section), f"{key} of {name}"


def test_run_variables_are_those_of_a_run():
    table = re.findall(
        r"^\| `(\w+)` \|", DOCUMENT[DOCUMENT.index("| variable |") : DOCUMENT.index("## Decisions")], re.M
    )
    session = (Path(helm_sentry.__file__).parent / "prepare.py").read_text()
    (variables,) = re.findall(r"def _variables\(.*?    return \{\n(.*?)\n    \}", session, re.DOTALL)
    assert table == re.findall(r'^ +"(\w+)":', variables, re.MULTILINE)


def test_kernel_operations_name_their_calls():
    (section,) = sections("kernel")
    said = {name: set(re.split(r",\s+", calls)) for name, calls in re.findall(r"`(\w+)`\s\(([^()]+)\)[;.]", section)}
    assert said == {
        name: {row.name + "*" * bool(row.tests) for row in syscalls.rows() if row.operation is kind}
        for name, kind in KERNEL_KINDS.items()
    }


def test_units_are_those_that_are_read():
    for unit in (*values._SIZE_UNITS, *values._TIME_UNITS):
        assert re.search(rf"\b[0-9]*{unit}\b", DOCUMENT[DOCUMENT.index("## limits") :]), unit


def test_patterns_match_what_the_page_says():
    for written, path in (
        ("/a/*", "/a/.b"),
        ("/a/**", "/a"),
        ("/a/?", "/a/b"),
        ("/[!b-z]", "/a"),
        ("/\\*", "/*"),
        ("/\\x61", "/a"),
    ):
        parsed = pattern.parse(written)
        whole = re.escape(parsed.prefix) + (pattern.regex(parsed.rest) if parsed.rest else "")
        assert re.fullmatch(whole, path), written


def test_names_of_the_supervisors_own_decisions():
    package = Path(helm_sentry.__file__).parent
    used = {name for path in package.rglob("*.py") for name in re.findall(r'"(sentry/[a-z-]+)"', path.read_text())}
    assert used == {word for word in words() if word.startswith("sentry/")}
