"""Questions to a name server: read strictly, whatever the bytes; answers that a C library would take."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.decode.dns import AAAA, MOST_ADDRESSES, A, Code, Question, answer, read_question


def asking(
    name: bytes, kind: int = A, *, group: int = 1, bits: int = 0x0100, count: int = 1, rest: bytes = b""
) -> bytes:
    labels = b"".join(bytes((len(label),)) + label for label in name.split(b".")) if name else b""
    return struct.pack(">6H", 0xBEEF, bits, count, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, group) + rest


def test_a_question_is_read_in_lower_case() -> None:
    question = read_question(asking(b"API.Example-1.com", AAAA, rest=b"\0\0\x29\x10\0\0\0\0\0\0\0"))  # with EDNS
    assert (question.name, question.kind, question.identity) == ("api.example-1.com", AAAA, 0xBEEF)
    assert question.recursive


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(asking(b"a.b")[:11], id="short header"),
        pytest.param(asking(b"a.b")[:14], id="cut in a label"),
        pytest.param(asking(b"a.b")[:-1], id="cut in the group"),
        pytest.param(asking(b"a.b")[:16], id="no end of the name"),
        pytest.param(asking(b"a.b", bits=0x8100), id="an answer"),
        pytest.param(asking(b"a.b", bits=0x2900), id="an update"),
        pytest.param(asking(b"a.b", count=2), id="two questions"),
        pytest.param(asking(b"a.b", count=0), id="no question"),
        pytest.param(asking(b""), id="the root"),
        pytest.param(asking(b"a b.c"), id="a space"),
        pytest.param(asking(b"a\0.c"), id="a NUL"),
        pytest.param(asking(b"a.-b.c"), id="a leading hyphen"),
        pytest.param(asking("b\u00fc.c".encode()), id="not ascii"),
        pytest.param(asking(b"*.c"), id="a star"),
        pytest.param(asking(b".".join([b"a" * 63] * 4)), id="too long"),
        pytest.param(asking(b"a.b", group=3), id="not the internet"),
        pytest.param(asking(b"a")[:12] + b"\xc0\x0c\0\1\0\1", id="a pointer to itself"),
    ],
)
def test_what_is_not_a_question_about_a_host_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_question(message)
    assert type(raised.value) is ValueError


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: asking(b"a.b")[:12] + tail))
def test_no_bytes_do_more_than_be_refused(message: bytes) -> None:
    try:
        question = read_question(message)
    except ValueError:
        return
    assert question.name == question.name.lower()
    assert answer(question, Code.FOUND).startswith(message[:2])


def test_an_answer_holds_the_addresses_of_the_kind_that_was_asked_for() -> None:
    question = read_question(asking(b"Api.Example.com", AAAA))
    message = answer(question, Code.FOUND, ["192.0.2.1", "2001:db8::1"], lifetime=60)
    assert struct.unpack(">6H", message[:12]) == (0xBEEF, 0x8180, 1, 1, 0, 0)
    asked, record = message[12 : 12 + len(question.raw)], message[12 + len(question.raw) :]
    assert asked == asking(b"Api.Example.com", AAAA)[12:]  # in the asker's letters
    assert record == b"\xc0\x0c" + struct.pack(">2HIH", AAAA, 1, 60, 16) + bytes.fromhex("20010db8" + "0" * 23 + "1")


@pytest.mark.parametrize("code", list(Code))
def test_an_answer_says_how_it_went(code: Code) -> None:
    message = answer(read_question(asking(b"a.b", bits=0)), code)
    assert struct.unpack(">6H", message[:12]) == (0xBEEF, 0x8080 | code, 1, 0, 0, 0)


@pytest.mark.parametrize(("kind", "start"), [(A, "192.0.2."), (AAAA, "2001:db8::")])
def test_the_longest_answer_needs_no_extension(kind: int, start: str) -> None:
    name = b".".join([b"a" * 63] * 3 + [b"a" * 61])
    question = read_question(asking(name, kind))
    message = answer(question, Code.FOUND, [f"{start}{number}" for number in range(1, 100)])
    assert len(message) <= 512
    assert int.from_bytes(message[6:8], "big") == MOST_ADDRESSES


def test_a_kind_without_addresses_gets_none() -> None:
    message = answer(Question("a.b", 16, 1, b"", False), Code.FOUND, ["192.0.2.1"])
    assert message[6:8] == b"\0\0"
