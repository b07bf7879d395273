"""What a caller says of itself arrives as it was said, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.standby.words import Words, packed, unpacked

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.just("\udcff")
NAMES = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(TEXT, min_size=1), st.lists(TEXT, min_size=1), st.dictionaries(NAMES, TEXT))
def test_a_round_trip(arguments: list[str], program: list[str], environment: dict[str, str]) -> None:
    head, _, body = packed(Words(tuple(arguments), tuple(program), environment)).partition(b"\n")
    assert int(head.split()[0]) == len(body)
    found = unpacked(head, body)
    assert (found.arguments, found.program, found.environment) == (tuple(arguments), tuple(program), environment)


@pytest.mark.parametrize(
    "head", [b"", b"5", b"5 1", b"5 1 1 1", b"5 x 1", b"5 -1 1", b"5 1 0", b"5 0 1", b"5 2 2", b"5 1 99"]
)
def test_what_was_not_said_so_is_refused(head: bytes) -> None:
    assert unpacked(b"5 1 2", b"a\0b\0c").arguments == ("a",)
    with pytest.raises(ValueError):
        unpacked(head, b"a\0b\0c")
