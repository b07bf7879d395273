"""Socket addresses, against the standard library and against the layouts in ip(7), ipv6(7) and unix(7)."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helm_sentry.decode import address as addresses
from helm_sentry.decode.address import AddressError, Internet, Other, Unix
from helm_sentry.policy import values

INET, INET6, UNIX, UNSPEC = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_UNSPEC
V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
PORTS = st.integers(0, 65535)
FAMILIES = st.sampled_from([INET, INET6, UNIX, UNSPEC, 16, 17, 38, 255, 65535])


def sockaddr_in(address: str, port: int, family: int = INET, tail: bytes = bytes(8)) -> bytes:
    return struct.pack("=H", family) + struct.pack("!H4s", port, ipaddress.IPv4Address(address).packed) + tail


def sockaddr_in6(address: str, port: int, flow: int = 0, tail: bytes = bytes(4)) -> bytes:
    return struct.pack("=H", INET6) + struct.pack("!HI16s", port, flow, ipaddress.IPv6Address(address).packed) + tail


def twin(raw: bytes, unspecified_is_inet: bool) -> Internet | Unix | Other | None:
    """Return the same by the standard library, None for an error."""
    if len(raw) < 2:
        return None
    (family,) = struct.unpack_from("=H", raw)
    if family == INET or (family == UNSPEC and unspecified_is_inet):
        if len(raw) < 16:
            return None
        return Internet(socket.inet_ntop(INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0])
    if family == INET6:
        if len(raw) < 24:
            return None
        mapped = raw[8:20] == bytes(10) + b"\xff\xff"
        text = socket.inet_ntop(INET, raw[20:24]) if mapped else str(ipaddress.IPv6Address(raw[8:24]))
        return Internet(text, struct.unpack_from("!H", raw, 2)[0])
    if family == UNIX:
        if len(raw) > 110:
            return None
        if len(raw) == 2:
            return Unix(b"", b"", True)
        return Unix(b"", raw[3:]) if raw[2] == 0 else Unix(raw[2:].split(b"\0")[0], b"")
    return Other(family)


class TestParse:
    """From bytes to what is judged."""

    @given(FAMILIES, st.binary(max_size=130), st.booleans())
    @example(INET6, bytes(6) + bytes(10) + b"\xff\xff\x7f\0\0\1", False)
    @example(UNSPEC, struct.pack("!H", 80) + bytes((127, 0, 0, 1)) + bytes(8), True)
    def test_any_bytes(self, family: int, rest: bytes, unspecified_is_inet: bool) -> None:
        raw = struct.pack("=H", family) + rest
        wanted = twin(raw, unspecified_is_inet)
        if wanted is None:
            with pytest.raises(AddressError):
                addresses.parse(raw, unspecified_is_inet)
        else:
            assert addresses.parse(raw, unspecified_is_inet) == wanted

    @pytest.mark.parametrize("raw", [b"", b"\2"])
    def test_less_than_a_family(self, raw: bytes) -> None:
        with pytest.raises(AddressError):
            addresses.parse(raw)
        with pytest.raises(AddressError):
            addresses.family_of(raw)

    @given(V4, PORTS, st.binary(max_size=20))
    def test_internet(self, address: ipaddress.IPv4Address, port: int, tail: bytes) -> None:
        """What follows the address is padding, however much there is."""
        assert addresses.parse(sockaddr_in(str(address), port, tail=bytes(8) + tail)) == Internet(str(address), port)

    @given(V6, PORTS, st.integers(0, 2**32 - 1), st.binary(max_size=20))
    def test_internet_6(self, address: ipaddress.IPv6Address, port: int, flow: int, tail: bytes) -> None:
        raw = sockaddr_in6(str(address), port, flow, tail)
        wanted = str(address.ipv4_mapped) if address.ipv4_mapped else str(address)
        assert addresses.parse(raw) == Internet(wanted, port)

    @given(V4, PORTS)
    def test_a_mapped_address_is_judged_as_the_mapped_one(self, address: ipaddress.IPv4Address, port: int) -> None:
        assert addresses.parse(sockaddr_in6(f"::ffff:{address}", port)) == addresses.parse(
            sockaddr_in(str(address), port)
        )

    @pytest.mark.parametrize("size", range(2, 16))
    def test_short_internet(self, size: int) -> None:
        with pytest.raises(AddressError):
            addresses.parse(sockaddr_in("127.0.0.1", 80)[:size])

    @pytest.mark.parametrize("size", range(2, 24))
    def test_short_internet_6(self, size: int) -> None:
        with pytest.raises(AddressError):
            addresses.parse(sockaddr_in6("::1", 80)[:size])

    def test_without_a_scope_is_long_enough(self) -> None:
        assert addresses.parse(sockaddr_in6("::1", 80)[:24]) == Internet("::1", 80)

    def test_no_family_is_internet_for_those_who_say_so(self) -> None:
        raw = sockaddr_in("127.0.0.1", 80, UNSPEC)
        assert addresses.parse(raw) == Other(UNSPEC)
        assert addresses.parse(raw, unspecified_is_inet=True) == Internet("127.0.0.1", 80)

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            (b"", Unix(b"", b"", unnamed=True)),
            (b"/run/x", Unix(b"/run/x", b"")),
            (b"/run/x\0", Unix(b"/run/x", b"")),
            (b"/run/x\0garbage", Unix(b"/run/x", b"")),
            (b"\0name", Unix(b"", b"name")),
            (b"\0", Unix(b"", b"")),
            (b"\0a\0b\0", Unix(b"", b"a\0b\0")),
            (b"x" * 108, Unix(b"x" * 108, b"")),
        ],
    )
    def test_unix(self, name: bytes, wanted: Unix) -> None:
        assert addresses.parse(struct.pack("=H", UNIX) + name) == wanted

    def test_long_unix(self) -> None:
        with pytest.raises(AddressError):
            addresses.parse(struct.pack("=H", UNIX) + b"x" * 109)


class TestDestination:
    """The unspecified address means this host."""

    @pytest.mark.parametrize(("address", "wanted"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")])
    def test_destination(self, address: str, wanted: str) -> None:
        assert addresses.destination(address) == wanted

    @given(st.one_of(V4.map(lambda a: sockaddr_in(str(a), 1)), V6.map(lambda a: sockaddr_in6(str(a), 1))))
    @example(sockaddr_in("0.0.0.0", 80))
    @example(sockaddr_in("0.0.0.0", 80, UNSPEC))
    @example(sockaddr_in6("::", 80, 7))
    @example(sockaddr_in6("::", 80)[:24])
    @example(sockaddr_in6("::ffff:0.0.0.0", 80))
    def test_directed_bytes_go_where_the_judged_address_says(self, raw: bytes) -> None:
        judged = addresses.parse(raw, unspecified_is_inet=True)
        used = addresses.parse(addresses.directed(raw), unspecified_is_inet=True)
        assert isinstance(judged, Internet)
        assert used == Internet(addresses.destination(judged.address), judged.port)
        assert len(addresses.directed(raw)) == len(raw)
        if used == judged:
            assert addresses.directed(raw) == raw

    @pytest.mark.parametrize(
        ("own", "raw", "meant"),
        [
            (sockaddr_in6("::ffff:0.0.0.0", 7), sockaddr_in6("::", 80), sockaddr_in6("::ffff:127.0.0.1", 80)),
            (sockaddr_in6("::ffff:192.0.2.1", 7), sockaddr_in6("::", 80), sockaddr_in6("::ffff:127.0.0.1", 80)),
            (sockaddr_in6("::ffff:192.0.2.1", 7), sockaddr_in6("::1", 80), sockaddr_in6("::1", 80)),
            (sockaddr_in6("::ffff:192.0.2.1", 7), sockaddr_in6("::", 80)[:23], sockaddr_in6("::", 80)[:23]),
            (sockaddr_in6("::", 7), sockaddr_in6("::", 80), sockaddr_in6("::", 80)),
            (sockaddr_in("0.0.0.0", 7), sockaddr_in6("::", 80), sockaddr_in6("::", 80)),
        ],
    )
    def test_what_unspecified_means_to_a_socket_bound_to_ipv4(self, own: bytes, raw: bytes, meant: bytes) -> None:
        assert addresses.to_itself(raw, own) == meant

    def test_directed_keeps_what_is_not_the_address(self) -> None:
        assert addresses.directed(sockaddr_in6("::", 80, 7, b"abcd")) == sockaddr_in6("::1", 80, 7, b"abcd")
        assert addresses.directed(sockaddr_in("0.0.0.0", 80, UNSPEC)) == sockaddr_in("127.0.0.1", 80, UNSPEC)

    @pytest.mark.parametrize(
        ("address", "wanted"),
        [
            ("127.0.0.1", True),
            ("127.255.0.9", True),
            ("::1", True),
            ("10.0.0.1", False),
            ("::2", False),
            ("0.0.0.0", False),
        ],
    )
    def test_loopback(self, address: str, wanted: bool) -> None:
        assert addresses.is_loopback(address) is wanted


class TestUnixAddress:
    """From a path to a sockaddr."""

    @given(st.binary(min_size=1, max_size=108).map(lambda path: path.replace(b"\0", b"x")))
    def test_what_is_made_is_read_back(self, path: bytes) -> None:
        assert addresses.parse(addresses.unix_address(path)) == Unix(path, b"")

    def test_too_long(self) -> None:
        with pytest.raises(AddressError):
            addresses.unix_address(b"x" * 109)


class TestFamilies:
    """Names of address families."""

    def test_the_words_are_those_of_policies(self) -> None:
        assert addresses.FAMILIES[1:] == values.FAMILIES

    @pytest.mark.parametrize("family", list(socket.AddressFamily))
    def test_numbers_are_the_systems(self, family: socket.AddressFamily) -> None:
        name = family.name.removeprefix("AF_").lower()
        assert addresses.family_name(family) == {"route": "netlink", "local": "unix", "file": "unix"}.get(name, name)

    @pytest.mark.parametrize("family", [-1, 46, 255, 65535])
    def test_unknown_numbers(self, family: int) -> None:
        assert addresses.family_name(family) == str(family)
