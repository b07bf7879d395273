"""Control messages: descriptors are replaced, routes and credentials refused, everything else passed on."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.decode.messages import ControlError, ControlRefused, translate

SOCKET, IP, IPV6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6
RIGHTS, CREDENTIALS = socket.SCM_RIGHTS, socket.SCM_CREDENTIALS
HEADER = 16

Message = tuple[int, int, bytes]


def packed(*messages: Message, pad_last: bool = True) -> bytes:
    """Lay messages out as CMSG_SPACE and CMSG_LEN do."""
    out = b""
    for level, kind, body in messages:
        entry = struct.pack("=Qii", socket.CMSG_LEN(len(body)), level, kind) + body
        out += entry.ljust(socket.CMSG_SPACE(len(body)), b"\0")
    if messages and not pad_last:
        out = out[: len(out) - socket.CMSG_SPACE(len(messages[-1][2])) + socket.CMSG_LEN(len(messages[-1][2]))]
    return out


def rights(*numbers: int) -> Message:
    return SOCKET, RIGHTS, struct.pack(f"={len(numbers)}i", *numbers)


def ours(number: int) -> int:
    """Stand in for a duplicate: tells which number it was made of."""
    return number + 1000


def fail(number: int) -> int:
    raise AssertionError(f"descriptor {number} was asked for")


# Control messages that carry no descriptor and nothing that is refused: timestamps, TTL, packet info, UDP_SEGMENT.
PLAIN = [(SOCKET, 37), (IP, 2), (IP, 8), (IPV6, 50), (17, 103), (SOCKET, 61)]
messages = st.one_of(
    st.lists(st.integers(0, 1 << 20), max_size=6).map(lambda numbers: rights(*numbers)),
    st.tuples(st.sampled_from(PLAIN), st.binary(max_size=40)).map(lambda each: (*each[0], each[1])),
)


class TestTranslate:
    """Well-formed control data."""

    @given(st.lists(messages, max_size=5), st.booleans())
    def test_only_descriptors_change(self, given_messages: list[Message], pad_last: bool) -> None:
        wanted = [
            (level, kind, struct.pack(f"={len(body) // 4}i", *(ours(n) for (n,) in struct.iter_unpack("=i", body))))
            if (level, kind) == (SOCKET, RIGHTS)
            else (level, kind, body)
            for level, kind, body in given_messages
        ]
        assert translate(packed(*given_messages, pad_last=pad_last), ours) == packed(*wanted)

    def test_nothing(self) -> None:
        assert translate(b"", fail) == b""

    @pytest.mark.parametrize("size", range(1, HEADER))
    def test_less_than_a_header_is_no_message(self, size: int) -> None:
        """CMSG_FIRSTHDR and CMSG_NXTHDR see nothing there."""
        assert translate(bytes(size), fail) == b""
        assert translate(packed(rights(3)) + bytes(size), ours) == packed(rights(1003))

    def test_descriptors_are_asked_for_once_and_in_order(self) -> None:
        asked: list[int] = []

        def note(number: int) -> int:
            asked.append(number)
            return 7

        assert translate(packed(rights(5, 3, 5), (IP, 2, b"\x40\0\0\0"), rights(4)), note) == packed(
            rights(7, 7, 7), (IP, 2, b"\x40\0\0\0"), rights(7)
        )
        assert asked == [5, 3, 5, 4]

    def test_negative_numbers_reach_the_one_who_duplicates(self) -> None:
        assert translate(packed(rights(-1)), lambda number: 5 if number == -1 else 6) == packed(rights(5))

    def test_a_body_that_is_no_whole_number_of_descriptors(self) -> None:
        """The kernel counts whole ones only."""
        level, kind, body = rights(3)
        assert translate(packed((level, kind, body + b"\1\2")), ours) == packed(rights(1003))

    def test_an_error_of_the_one_who_duplicates_passes(self) -> None:
        def missing(number: int) -> int:
            raise OSError(9, "bad")

        with pytest.raises(OSError, match="bad"):
            translate(packed(rights(1)), missing)

    def test_as_many_as_the_kernel_takes(self) -> None:
        assert translate(packed(rights(*range(253))), ours) == packed(rights(*range(1000, 1253)))
        assert translate(packed(rights(*range(200)), rights(*range(53))), ours)

    @pytest.mark.parametrize("split", [(254,), (253, 1), (200, 54)])
    def test_one_too_many(self, split: tuple[int, ...]) -> None:
        with pytest.raises(ControlError, match="too many"):
            translate(packed(*(rights(*range(count)) for count in split)), ours)

    @pytest.mark.parametrize("kind", [3, 4, 37, 99])
    def test_a_unix_socket_knows_no_others_of_its_level(self, kind: int) -> None:
        control = packed((IP, 2, b"\x40\0\0\0"), (SOCKET, kind, bytes(4)))
        assert translate(control, ours) == control
        with pytest.raises(ControlError, match="unknown"):
            translate(control, ours, local=True)
        assert translate(packed(rights(3), (IP, 99, b"")), ours, local=True)


class TestRefusals:
    """What no agent may say."""

    @pytest.mark.parametrize(("level", "kind"), [(IP, 7), (IPV6, 5), (IPV6, 57)])
    def test_routes(self, level: int, kind: int) -> None:
        with pytest.raises(ControlRefused, match="^route$"):
            translate(packed((IP, 2, b"\1\0\0\0"), (level, kind, bytes(24))), ours)

    @pytest.mark.parametrize("body", [b"", bytes(12), bytes(100)])
    def test_credentials(self, body: bytes) -> None:
        with pytest.raises(ControlRefused, match="^credentials$"):
            translate(packed(rights(3), (SOCKET, CREDENTIALS, body)), ours)

    def test_the_same_numbers_at_another_level_are_something_else(self) -> None:
        plain = [(SOCKET, 7, b"x"), (IP, 57, b"x"), (IP, CREDENTIALS, b"x"), (IP, RIGHTS, b"\3\0\0\0")]
        assert translate(packed(*plain), fail) == packed(*plain)


class TestMalformed:
    """Lengths that lie."""

    @pytest.mark.parametrize("length", [0, 1, HEADER - 1, HEADER + 5, 1 << 32, (1 << 64) - 1, (1 << 64) - HEADER])
    def test_bad_length(self, length: int) -> None:
        with pytest.raises(ControlError, match="bad length"):
            translate(struct.pack("=Qii", length, SOCKET, RIGHTS) + bytes(4), fail)

    @given(st.binary(max_size=200))
    def test_any_bytes_give_an_answer(self, control: bytes) -> None:
        try:
            out = translate(control, ours)
        except (ControlError, ControlRefused):
            return
        # What came out is well-formed, and translating it again finds the same messages.
        assert translate(out, lambda number: number) == out
