import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.audit.canonical import MAX_DEPTH, dumps, encode, escape, loads
from tests.vectors import each

text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(max_codepoint=127))
scalars = st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)


def in_subset(value):
    """Whether RFC 8785 and our restriction of it both have a form for a value."""
    if isinstance(value, dict):
        return all(name.isascii() for name in value) and all(map(in_subset, value.values()))
    return all(map(in_subset, value)) if isinstance(value, list) else not isinstance(value, float)


class TestDumps:
    @pytest.mark.parametrize("case", each("jcs", "documents"))
    def test_rfc_8785_document(self, case):
        value = json.loads(case["input"])
        if in_subset(value):
            assert dumps(value).hex() == case["output_hex"]
        else:
            with pytest.raises(ValueError):
                dumps(value)

    @given(values)
    def test_loads_gives_it_back(self, value):
        assert loads(dumps(value)) == value
        assert loads(dumps(value), canonical=True) == value

    @given(values)
    def test_agrees_with_the_standard_encoder(self, value):
        expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert dumps(value).decode() == expected

    @given(st.dictionaries(names, scalars))
    def test_the_fast_path_gives_the_same_bytes(self, fields):
        assert encode(fields) == dumps(fields)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(1.0, id="float"),
            pytest.param({"a": [1, {"b": 0.5}]}, id="float within"),
            pytest.param(float("nan"), id="not a number"),
            pytest.param(2**53, id="integer too large"),
            pytest.param([-(2**53)], id="integer too small"),
            pytest.param({"ä": 1}, id="member name outside ASCII"),
            pytest.param({1: 1}, id="member name that is a number"),
            pytest.param("\ud800", id="surrogate"),
            pytest.param({"a": "\udcff"}, id="escaped byte"),
            pytest.param((1, 2), id="tuple"),
            pytest.param(b"bytes", id="bytes"),
            pytest.param({"a": type("Text", (str,), {})("x")}, id="subclass of str"),
        ],
    )
    def test_refuses(self, value):
        with pytest.raises(ValueError):
            dumps(value)

    def test_refuses_more_levels_than_the_stack_can_take(self):
        value = []
        for _ in range(MAX_DEPTH + 1):
            value = [value]
        with pytest.raises(ValueError, match="levels deep"):
            dumps(value)

    @pytest.mark.parametrize("value", ["\udcff", 2**53], ids=["surrogate", "large integer"])
    def test_the_fast_path_refuses(self, value):
        with pytest.raises(ValueError):
            encode({"a": value})


class TestLoads:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b'{"a":1,"a":2}', id="member given twice"),
            pytest.param(b'{"b":{"a":1,"a":1}}', id="member given twice within"),
            pytest.param(b"1.0", id="float"),
            pytest.param(b"1e3", id="exponent"),
            pytest.param(b"NaN", id="NaN"),
            pytest.param(b"-Infinity", id="infinity"),
            pytest.param(b"9007199254740992", id="integer too large"),
            pytest.param(b"9" * 5000, id="very large integer"),
            pytest.param('{"ä":1}'.encode(), id="member name outside ASCII"),
            pytest.param(b'"\\ud800"', id="surrogate"),
            pytest.param(b'"\xff"', id="not UTF-8"),
            pytest.param(b"\xef\xbb\xbf1", id="byte order mark"),
            pytest.param(b"1 2", id="two values"),
            pytest.param(b"", id="nothing"),
            pytest.param(b"[" * 100_000, id="deep and cut short"),
            pytest.param(b"[" * 500 + b"]" * 500, id="deep"),
        ],
    )
    @pytest.mark.parametrize("canonical", [False, True])
    def test_refuses(self, data, canonical):
        with pytest.raises(ValueError):
            loads(data, canonical=canonical)

    @pytest.mark.parametrize(
        "data", [b'{"b":1,"a":2}', b'{"a": 1}', b"1\n", b'"\\u0061"', b'"\\/"', b"-0", b'"\\u001F"']
    )
    def test_other_spellings_are_read_unless_canonical_is_asked_for(self, data):
        loads(data)
        with pytest.raises(ValueError):
            loads(data, canonical=True)


class TestEscape:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"/usr/bin/python3", "/usr/bin/python3"),
            ("/tmp/größe".encode(), "/tmp/größe"),
            (b"/tmp/100%", "/tmp/100%25"),
            (b"/tmp/\xff\x80a", "/tmp/%FF%80a"),
            (b"%FF\xff", "%25FF%FF"),
            (b"\xed\xa0\x80", "%ED%A0%80"),
            (b"\xc3", "%C3"),
        ],
    )
    def test_bytes_and_their_decoded_form(self, data, expected):
        assert escape(data) == expected
        assert escape(os.fsdecode(data)) == expected

    @given(st.binary(), st.binary())
    def test_different_bytes_give_different_texts(self, one, other):
        assert (escape(one) == escape(other)) == (one == other)

    @given(st.lists(st.sampled_from([b"%", b"F", b"2", b"5", b"\xff", b"\xc3", b"\xa9", b"a"])).map(b"".join))
    def test_can_be_undone(self, data):
        unescaped = b""
        rest = escape(data).encode()
        while rest:
            width = 3 if rest[:1] == b"%" else 1
            unescaped += bytes.fromhex(rest[1:3].decode()) if width == 3 else rest[:1]
            rest = rest[width:]
        assert unescaped == data

    @given(st.binary())
    def test_has_a_canonical_form(self, data):
        assert loads(dumps(escape(data))) == escape(data)

    def test_refuses_a_surrogate_that_is_no_byte(self):
        with pytest.raises(ValueError):
            escape("\ud800")
