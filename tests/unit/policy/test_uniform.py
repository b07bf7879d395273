"""What is decided alike beneath a directory, against the engine itself."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import uniform
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Effect, ExecMatch, FileMatch, Policy, Rule
from helm_sentry.policy.pattern import quote
from helm_sentry.policy.uniform import KINDS, Uniform
from tests.strategies import close_paths, pattern_lists, policies

READ, LIST, STAT = Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT
HEAD = "schema: helm-sentry/policy/v1\nname: test\n"
EMPTY = load(HEAD, packs={})


def plain_policies() -> st.SearchStrategy[Policy]:
    """Policies of rules about files, many of which meet."""
    tree = close_paths(2).map(lambda path: (f"{quote(path).rstrip('/')}/**",))
    matches = st.builds(
        FileMatch, st.sets(st.sampled_from(sorted(KINDS)), min_size=1).map(frozenset), pattern_lists() | tree
    )
    matches |= st.builds(ExecMatch, pattern_lists())

    def some(effect: Effect) -> st.SearchStrategy[tuple[Rule, ...]]:
        rule = st.builds(Rule, st.sampled_from(["b", "m", "x"]), st.just(effect), matches)
        return st.lists(rule, max_size=3, unique_by=lambda rule: rule.id).map(tuple)

    return st.builds(
        lambda allow, block: replace(
            EMPTY, allow=allow, block=tuple(replace(rule, id=f"no-{rule.id}") for rule in block)
        ),
        some(Effect.ALLOW),
        some(Effect.BLOCK),
    )


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_all_beneath_is_decided_as_the_engine_does(data: st.DataObject) -> None:
    within = data.draw(st.lists(plain_policies(), max_size=1))
    compiled = compile_policy(replace(data.draw(plain_policies()), within=tuple(within)))
    kind, path = data.draw(st.sampled_from(sorted(KINDS))), data.draw(close_paths())
    directory = Uniform(compiled).above(kind, path)
    assume(directory is not None)
    assert path.startswith(f"{directory}/") and directory != "/"
    wanted = decide(compiled, Operation(kind, path=path))
    for _ in range(5):
        other = f"{directory}{data.draw(close_paths(3).filter(lambda found: found != '/'))}"
        assert decide(compiled, Operation(kind, path=other)) == wanted, other


@settings(max_examples=20, deadline=None)
@given(policies(), close_paths())
def test_of_any_policy_only_what_depends_on_nothing_else(policy: Policy, path: str) -> None:
    compiled = compile_policy(policy)
    uniform_of = Uniform(compiled)
    for kind in Kind:
        found = uniform_of.above(kind, path)
        assert found is None or (kind in KINDS and kind not in compiled.guarded_kinds)


def above(rules: str, path: str, kind: Kind = READ) -> str | None:
    return Uniform(compile_policy(load(HEAD + rules, packs={}))).above(kind, path)


WORK = "allow:\n  - {id: work, file: {do: [read, list], paths: ['/w/**']}}\n"


@pytest.mark.parametrize(
    ("rules", "path", "wanted"),
    [
        pytest.param(WORK, "/w/a/b", "/w", id="a tree"),
        pytest.param(WORK, "/w", None, id="the directory itself"),
        pytest.param(WORK, "/x", None, id="nothing above but the root"),
        pytest.param(WORK, "/x/y", "/x", id="what no rule names"),
        pytest.param(
            WORK + "block:\n  - {id: k, file: {do: [read], paths: [/w/a/key]}}", "/w/a/b", None, id="beside a block"
        ),
        pytest.param(
            WORK + "block:\n  - {id: k, file: {do: [read], paths: [/w/a/key]}}", "/w/b/c", "/w/b", id="elsewhere"
        ),
        pytest.param(
            WORK + "block:\n  - {id: k, file: {do: [read], paths: ['/w/**/*.key']}}", "/w/a/b", None, id="a glob"
        ),
        pytest.param(
            WORK + "block:\n  - {id: k, file: {do: [read], paths: ['/w/.env*/**']}}",
            "/w/a/b",
            "/w/a",
            id="a glob elsewhere",
        ),
        pytest.param(WORK + "  - {id: x, file: {do: [read], paths: ['/w/*/c']}}", "/w/a/b", "/w", id="a later rule"),
        pytest.param(WORK + "  - {id: a, file: {do: [read], paths: ['/w/*/c']}}", "/w/a/b", None, id="an earlier rule"),
        pytest.param(WORK + "  - {id: a, file: {do: [write], paths: ['/w/*/c']}}", "/w/a/b", "/w", id="another kind"),
    ],
)
def test_where(rules: str, path: str, wanted: str | None) -> None:
    assert above(rules, path) == wanted


def test_a_kind_that_is_not_decided_by_the_path_alone() -> None:
    assert above(WORK, "/w/a/b", Kind.FILE_RENAME) is None
    guarded = "contextual:\n  - {id: c, file: {do: [read], paths: ['/v/**']}, when: 'run.elapsed < duration(\"1h\")'}\n"
    assert above(WORK + guarded, "/w/a/b", READ) is None
    assert above(WORK + guarded, "/w/a/b", LIST) == "/w"


def test_looking_is_told_apart_by_what_leads_to_a_rule() -> None:
    deep = "  - {id: a, file: {do: [read], paths: [/w/d/e/f]}}"
    assert above(WORK + deep, "/w/d/x", STAT) is None  # `/w/d/e` is seen by the rule `a`
    assert above(WORK + deep, "/w/c/x", STAT) == "/w/c"


def test_names_are_made_up_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniform, "_MOST_REMEMBERED", 3)
    found = Uniform(compile_policy(load(HEAD + WORK, packs={})))
    assert [found.above(READ, f"/w/{name}/b") for name in range(9)] == ["/w"] * 9
    assert [found.above(READ, f"/{name}/b") for name in range(9)] == [f"/{name}" for name in range(9)]
