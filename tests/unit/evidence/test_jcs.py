"""RFC 8785 in full, against what its author published; and HELM's reading of it, which keeps numbers as written."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.audit import canonical
from helm_sentry.evidence import jcs
from tests.vectors import each, published


@pytest.mark.parametrize("case", each("jcs", "documents"))
def test_documents(case):
    assert jcs.dumps(json.loads(case["input"])).hex() == case["output_hex"]


@pytest.mark.parametrize(("name", "count"), [("appendix_b", 26), ("es6_10k", 10_000)])
def test_numbers(name, count):
    cases = published("jcs")[name]
    assert len(cases) == count
    for bits, expected in cases:
        (value,) = struct.unpack(">d", int(bits, 16).to_bytes(8))
        if math.isfinite(value):
            assert jcs.number(value) == expected, bits
        else:
            with pytest.raises(ValueError, match="no canonical form"):
                jcs.number(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_given_back(value):
    assert float(jcs.number(value)) == value


text = st.text(st.characters(exclude_categories=["Cs"]))
ours = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | text,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=20,
)


@given(ours)
def test_what_we_sign_is_the_same_in_both(value):
    assert jcs.dumps(value) == canonical.dumps(value)
    assert jcs.loads(jcs.dumps(value)) == value


def test_names_stand_in_the_order_of_their_units():
    assert jcs.dumps({"\ufb33": 1, "\U0001f602": 2, "\u20ac": 3}) == '{"€":3,"\U0001f602":2,"\ufb33":1}'.encode()


def test_numbers_that_were_read_are_written_as_they_were():
    assert jcs.dumps(jcs.loads(b'{"b":1.50,"a":1E2,"c":-0}')) == b'{"a":1E2,"b":1.50,"c":0}'


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}', b"NaN", b"-Infinity", b"9007199254740992", b"9" * 5000, b'"\\ud800"', b'{"\\ud800":1}', b"\xff",
        b"1 2", b"", b"[" * 100_000, b"[" * 500 + b"]" * 500,
    ],
)  # fmt: skip
def test_refuses(data):
    with pytest.raises(ValueError):
        jcs.loads(data)


@pytest.mark.parametrize("value", [2**53, (1, 2), b"x", {1: 2}, math.nan], ids=repr)
def test_has_no_form_for(value):
    with pytest.raises(ValueError):
        jcs.dumps(value)
