"""Policy text to nodes: places, and the parts of YAML that policies do without."""

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.errors import PolicyError
from helm_sentry.policy import document
from helm_sentry.policy.document import MAX_DEPTH, MAX_SIZE, Items, Node, Scalar, parse, parse_without_places


def plain(node: Node) -> object:
    """A tree without its places."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key.text: plain(value) for key, value in node.entries}


def places(node: Node) -> list[tuple[str, int, int]]:
    """Every scalar with its line and column."""
    if isinstance(node, Scalar):
        return [(node.text, node.place.line, node.place.column)]
    if isinstance(node, Items):
        return [place for item in node.items for place in places(item)]
    return [place for entry in node.entries for part in entry for place in places(part)]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a: no", {"a": "no"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: 0x10\nb: ~\nc:\nd: 1e3", {"a": "0x10", "b": "~", "c": "", "d": "1e3"}),
        ("no: yes", {"no": "yes"}),
        ("a: [1, true, 2001-01-01]", {"a": ["1", "true", "2001-01-01"]}),
        ("a: 'it''s'\nb: \"\\x41\\n\"", {"a": "it's", "b": "A\n"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("# only a comment\na: b # and another\n", {"a": "b"}),
        ("\ufeffa: b", {"a": "b"}),
        ("--- \na: b\n...\n", {"a": "b"}),
        ("a: {}\nb: []\n", {"a": {}, "b": []}),
    ],
)
def test_every_scalar_is_text(text, tree):
    assert plain(parse(text, "t.yaml")) == tree


def test_places_count_from_one():
    assert places(parse("a: ä, b\nc:\n  - d\n  - {e: 'f'}\n", "t.yaml")) == [
        ("a", 1, 1),
        ("ä, b", 1, 4),
        ("c", 2, 1),
        ("d", 3, 5),
        ("e", 4, 6),
        ("f", 4, 9),
    ]


def test_places_in_json_stand_where_the_text_stands():
    text = '{\t"a": "\\ud83d\\ude00\\/", "b":["c",\n\t12, true]}'
    assert places(parse(text, "t.json")) == [
        ("a", 1, 3),
        ("\U0001f600/", 1, 8),
        ("b", 1, 26),
        ("c", 1, 31),
        ("12", 2, 2),
        ("true", 2, 6),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "empty; a policy begins with `schema: helm-sentry/policy/v1`"),
        ("# nothing\n", 1, 1, "empty; a policy begins with `schema: helm-sentry/policy/v1`"),
        ("a: b\na: c", 2, 1, "key `a` is already given on line 1"),
        ("a: &x b", 1, 4, "anchor `&x`; use `variables` for text that repeats"),
        ("a: *x", 1, 4, "an alias; use `variables` for text that repeats"),
        ("a: {<<: b}", 1, 5, "merge key `<<`; use `extends` or `variables`"),
        ("a: !!int 3", 1, 4, "tag `tag:yaml.org,2002:int`; policies use no tags, remove it"),
        ("a: !!python/object/apply:os.system [x]", 1, 4, "policies use no tags, remove it"),
        ("a: ! b", 1, 4, "tag `!`; policies use no tags, remove it"),
        ("%TAG ! tag:x,2000:\n--- a", 1, 1, "a `%TAG` line; policies use no tags"),
        ("a: b\n---\nc: d", 2, 1, "a second document; write one policy in one file"),
        ("? [a]\n: b", 1, 3, "a key that is not a word"),
        ("a: b: c", 1, 5, "not yaml: mapping values are not allowed"),
        ("a: [b}", 1, 6, "expected ',' or ']'"),
        ("a:\n\tb: c", 2, 1, "tab in the indentation; indent with spaces"),
        ("a:\n  b: \x07", 2, 6, "invisible character U+0007"),
        ("a: x\u202ey", 1, 5, "invisible character U+202E"),
        ("a: x\u200by", 1, 5, "invisible character U+200B"),
        ("a: b\u2028c: d", 1, 5, "invisible character U+2028"),
        ('a: "\\e[1m"', 1, 4, "invisible character U+001B; remove it, or in a path write its bytes as `\\xHH`"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, 1, 3 + MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "[" * 100_000, 1, 3 + MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels"),
        ("#" * (MAX_SIZE + 1), 0, 0, "larger than 1024 KiB; split it"),
    ],
)
def test_refused_with_its_place(text, line, column, message):
    with pytest.raises(PolicyError, match=re.escape(message)) as caught:
        parse(text, "t.yaml")
    assert (caught.value.source, caught.value.line, caught.value.column) == ("t.yaml", line, column)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('{"a": 1,}', 1, 9, "not json: expecting property name enclosed in double quotes"),
        ("a: b", 1, 1, "not json: expecting value"),
        ('{"a": 1,\n "a": 2}', 2, 2, "key `a` is already given on line 1"),
        ('{"a": "\\ud800"}', 1, 0, "t.json:1:"),
        ('{"a": "\\u001b"}', 1, 7, "invisible character U+001B"),
        ('{"<<": 1}', 1, 2, "merge key"),
        ("[" * 100_000, 0, 0, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_json_refused_with_its_place(text, line, column, message):
    with pytest.raises(PolicyError, match=re.escape(message)) as caught:
        parse(text, "t.json")
    assert caught.value.line == line
    assert not column or caught.value.column == column
    with pytest.raises(PolicyError) as caught:
        parse_without_places(text, "t.json")
    assert caught.value.line == 0


@pytest.mark.parametrize("text", ['{"a": "\u200b"}', "#" * (MAX_SIZE + 1)])
def test_json_refused_without_its_place_too(text):
    for reader in (parse, parse_without_places):
        with pytest.raises(PolicyError):
            reader(text, "t.json")


def as_text(value: object) -> object:
    """What the tree of a JSON value should be."""
    if isinstance(value, list):
        return [as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return value if isinstance(value, str) else json.dumps(value)


_VISIBLE = st.text(st.characters(categories=("L", "M", "N", "P", "S")) | st.sampled_from("\n\t \\/\"'"), max_size=12)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _VISIBLE),
    lambda child: (
        st.lists(child, max_size=3) | st.dictionaries(_VISIBLE.filter(lambda key: key != "<<"), child, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_json_means_what_json_says(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert plain(parse(text, "t.json")) == plain(parse_without_places(text, "t.json")) == as_text(value)


@given(st.text())
def test_any_text_parses_or_is_refused(text):
    for source in ("t.yaml", "t.json"):
        try:
            parse(text, source)
        except PolicyError as error:
            assert str(error).isprintable() or "\n" not in str(error)
            if source == "t.json":
                with pytest.raises(PolicyError):
                    parse_without_places(text, source)


def test_an_error_without_a_place_is_still_one():
    """YAML's reader, which finds characters that are refused before it is asked, gives no place."""
    error = document._yaml_error(yaml.YAMLError("Unreadable"), "p.yaml")
    assert str(error) == "p.yaml: not yaml: unreadable"
