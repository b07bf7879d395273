"""What is decided alike beneath a directory, against the engine itself."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import uniform
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Effect, ExecMatch, FileMatch, Policy, Rule, UnixMatch
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


def blocking_policies() -> st.SearchStrategy[Policy]:
    """Policies that name little beneath `/a`, where most of the paths lie, in rules of every sort."""
    deep = st.sampled_from(
        ["/a/b", "/a/b/ab", "/a/b/ab/a.b", "/ab/a", "/a/*/b", "/**/b", "/a/b/**", "/a*/**", "/a/[ab]/**"]
    )
    lists = st.lists(deep, min_size=1, max_size=2).map(tuple)
    matches = st.builds(FileMatch, st.sets(st.sampled_from(sorted(KINDS)), min_size=1).map(frozenset), lists)
    matches |= st.builds(ExecMatch, lists) | st.builds(UnixMatch, st.just(frozenset({Kind.UNIX_BIND})), lists)
    blocks = st.lists(st.builds(Rule, st.sampled_from(["p", "q"]), st.just(Effect.BLOCK), matches), max_size=2)
    allowed = Rule("all", Effect.ALLOW, FileMatch(KINDS, ("/**",)))
    return blocks.map(
        lambda block: replace(
            EMPTY, allow=(allowed,), block=tuple(replace(rule, id=f"{at}-{rule.id}") for at, rule in enumerate(block))
        )
    )


@settings(max_examples=150, deadline=None)
@given(blocking_policies(), close_paths().filter(lambda path: path.count("/") > 1), st.data())
def test_to_delete_whatever_it_is_is_decided_as_the_engine_does(policy: Policy, path: str, data: st.DataObject) -> None:
    compiled = compile_policy(policy)
    directory = Uniform(compiled).above(Kind.FILE_DELETE, path, tree=True)
    assume(directory is not None)
    wanted = decide(compiled, Operation(Kind.FILE_DELETE, path=path, directory=True))
    for _ in range(5):
        other = f"{directory}{data.draw(close_paths(3).filter(lambda found: found != '/'))}"
        assert decide(compiled, Operation(Kind.FILE_DELETE, path=other, directory=True)) == wanted, other


@settings(max_examples=150, deadline=None)
@given(blocking_policies(), close_paths().filter(lambda path: path.count("/") > 1), st.data())
def test_where_files_are_moved_alike_directories_are_too(policy: Policy, path: str, data: st.DataObject) -> None:
    """So it does no harm if an entry that the receiver moves has become a directory."""
    compiled = compile_policy(policy)
    directory = Uniform(compiled).above(Kind.FILE_RENAME, path)
    assume(directory is not None)
    for kind in (Kind.FILE_RENAME, Kind.FILE_CREATE, Kind.FILE_DELETE):
        other = f"{directory}{data.draw(close_paths(3).filter(lambda found: found != '/'))}"
        as_file, as_tree = (decide(compiled, Operation(kind, path=other, directory=tree)) for tree in (False, True))
        assert as_file == as_tree, (kind, other)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_of_several_operations_each_is_decided_as_the_engine_does(data: st.DataObject) -> None:
    compiled = compile_policy(data.draw(blocking_policies()))
    old, new = (data.draw(st.sampled_from(["/b", "/b/a", "/a", "/a/a"])) + data.draw(close_paths(2)) for _ in "ab")

    def operations(old: str, new: str) -> tuple[Operation, ...]:
        return (
            Operation(Kind.FILE_RENAME, path=old),
            Operation(Kind.FILE_CREATE, path=new),
            Operation(Kind.FILE_DELETE, path=new, directory=True),
        )

    directory = Uniform(compiled).above_all(operations(old, new))
    assume(directory is not None)
    assert old.startswith(f"{directory}/") and new.startswith(f"{directory}/")
    wanted = [decide(compiled, operation) for operation in operations(old, new)]
    one, other = (f"{directory}{data.draw(close_paths(3).filter(lambda found: found != '/'))}" for _ in "ab")
    assert [decide(compiled, operation) for operation in operations(one, other)] == wanted


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
        pytest.param(
            WORK + "  - {id: a, file: {do: [read], paths: ['/w/v*/**']}}", "/w/venv/a", "/w/venv", id="an earlier tree"
        ),
        pytest.param(
            WORK + "  - {id: a, file: {do: [read], paths: ['/w/v*/**']}}", "/w/a/b", "/w/a", id="beside that tree"
        ),
        pytest.param(
            WORK + "  - {id: a, file: {do: [read], paths: ['/w/**/*.c']}}", "/w/a/b", None, id="an earlier glob"
        ),
        pytest.param(
            WORK + "block:\n  - {id: k, file: {do: [read], paths: ['/w/v*/**']}}",
            "/w/venv/a",
            None,
            id="a blocked tree",
        ),
    ],
)
def test_where(rules: str, path: str, wanted: str | None) -> None:
    assert above(rules, path) == wanted


def test_a_kind_that_is_not_decided_by_the_path_alone() -> None:
    assert above(WORK, "/w/a/b", Kind.FILE_LINK) is None
    guarded = "contextual:\n  - {id: c, file: {do: [read], paths: ['/v/**']}, when: 'run.elapsed < duration(\"1h\")'}\n"
    assert above(WORK + guarded, "/w/a/b", READ) is None
    assert above(WORK + guarded, "/w/a/b", LIST) == "/w"


CHANGE = "allow:\n  - {id: work, file: {do: [create, delete, rename], paths: ['/w/**']}}\n"
KEY = CHANGE + "block:\n  - {id: k, file: {do: [read], paths: [/w/a/b/key]}}"


def test_a_directory_on_the_way_to_what_is_blocked_may_not_be_deleted() -> None:
    uniform_of = Uniform(compile_policy(load(HEAD + KEY, packs={})))
    assert uniform_of.above(Kind.FILE_DELETE, "/w/a/b/c") == "/w"
    assert uniform_of.above(Kind.FILE_DELETE, "/w/a/b/c", tree=True) == "/w/a/b"
    assert uniform_of.above(Kind.FILE_DELETE, "/w/a/c", tree=True) is None  # `/w/a/b` may not be
    assert uniform_of.above(Kind.FILE_DELETE, "/w/c/d", tree=True) == "/w/c"
    assert uniform_of.above(Kind.FILE_CREATE, "/w/c/d", tree=True) is None


def test_two_names_beneath_one_directory() -> None:
    uniform_of = Uniform(compile_policy(load(HEAD + KEY, packs={})))

    def moved(old: str, new: str) -> str | None:
        return uniform_of.above_all([Operation(Kind.FILE_RENAME, path=old), Operation(Kind.FILE_CREATE, path=new)])

    assert moved("/w/c/d", "/w/c/e") == "/w/c"
    assert moved("/w/c/d", "/w/e/f") is None  # to move things is told apart beneath `/w`
    assert moved("/w/a/b/c", "/w/c") is None
    assert uniform_of.above_all([]) is None


def test_looking_is_told_apart_by_what_leads_to_a_rule() -> None:
    deep = "  - {id: a, file: {do: [read], paths: [/w/d/e/f]}}"
    assert above(WORK + deep, "/w/d/x", STAT) is None  # `/w/d/e` is seen by the rule `a`
    assert above(WORK + deep, "/w/c/x", STAT) == "/w/c"


def test_names_are_made_up_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniform, "_MOST_REMEMBERED", 3)
    found = Uniform(compile_policy(load(HEAD + WORK, packs={})))
    assert [found.above(READ, f"/w/{name}/b") for name in range(9)] == ["/w"] * 9
    assert [found.above(READ, f"/{name}/b") for name in range(9)] == [f"/{name}" for name in range(9)]
