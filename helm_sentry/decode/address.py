"""Socket addresses: from the bytes an agent passed to what a policy judges. Pure.

Layouts: `struct sockaddr_in` (ip(7)), `struct sockaddr_in6` (ipv6(7)), `struct sockaddr_un` (unix(7)).
"""

import ipaddress
import socket
from dataclasses import dataclass
from functools import lru_cache

_FAMILY_SIZE = 2
_INET_SIZE, _INET6_SIZE = 16, 24  # the kernel takes a sockaddr_in6 without its scope id
_UNIX_SIZE = 110  # the kernel refuses more than a whole sockaddr_un
_UNIX_PATH = 108
AF_UNSPEC = socket.AF_UNSPEC
# fmt: off
FAMILIES = (
    "unspec", "unix", "inet", "ax25", "ipx", "appletalk", "netrom", "bridge", "atmpvc", "x25", "inet6",
    "rose", "decnet", "netbeui", "security", "key", "netlink", "packet", "ash", "econet", "atmsvc",
    "rds", "sna", "irda", "pppox", "wanpipe", "llc", "ib", "mpls", "can", "tipc", "bluetooth",
    "iucv", "rxrpc", "isdn", "phonet", "ieee802154", "caif", "alg", "nfc", "vsock", "kcm",
    "qipcrtr", "smc", "xdp", "mctp",
)
# fmt: on
"""Address families by number (<linux/socket.h>), in the words of policies. Python knows only some of them."""

_LOOPBACK, _LOOPBACK6 = bytes((127, 0, 0, 1)), bytes(15) + b"\1"
_MAPPED = bytes(10) + b"\xff\xff"


class AddressError(ValueError):
    """The bytes are too few or too many for their family; the kernel answers EINVAL."""


@dataclass(frozen=True, slots=True)
class Internet:
    """An IP destination or binding.

    Attributes:
        address: canonical numeric text; an IPv4-mapped IPv6 address is given as IPv4.
        port: transport port.
    """

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket name.

    Attributes:
        path: file name, empty for an unnamed or abstract address.
        abstract: name in the abstract namespace, empty otherwise.
        unnamed: there is a family and nothing more: bind picks an abstract name, anything else is an error.
    """

    path: bytes
    abstract: bytes
    unnamed: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """An address of a family that is never brokered."""

    family: int


def family_of(raw: bytes) -> int:
    """Return the address family of a sockaddr.

    Raises:
        AddressError: there is not even a family.
    """
    if len(raw) < _FAMILY_SIZE:
        raise AddressError("no room for a family")
    return int.from_bytes(raw[:_FAMILY_SIZE], "little")


@lru_cache(maxsize=1024)
def parse(raw: bytes, unspecified_is_inet: bool = False) -> Internet | Unix | Other:
    """Return the address in a sockaddr.

    Args:
        raw: the bytes, as long as the agent said they are.
        unspecified_is_inet: read AF_UNSPEC as AF_INET, as bind and sendto do.

    Raises:
        AddressError: too short or too long for the family.
    """
    family = family_of(raw)
    if family == socket.AF_INET or (family == AF_UNSPEC and unspecified_is_inet):
        if len(raw) < _INET_SIZE:
            raise AddressError("short sockaddr_in")
        return Internet(str(ipaddress.IPv4Address(raw[4:8])), int.from_bytes(raw[2:4], "big"))
    if family == socket.AF_INET6:
        if len(raw) < _INET6_SIZE:
            raise AddressError("short sockaddr_in6")
        address = ipaddress.IPv6Address(raw[8:24])
        return Internet(str(address.ipv4_mapped or address), int.from_bytes(raw[2:4], "big"))
    if family == socket.AF_UNIX:
        name = raw[_FAMILY_SIZE:]
        if len(raw) > _UNIX_SIZE:
            raise AddressError("long sockaddr_un")
        if not name:
            return Unix(b"", b"", unnamed=True)
        if name.startswith(b"\0"):
            return Unix(b"", name[1:])
        return Unix(name.partition(b"\0")[0], b"")
    return Other(family)


def destination(address: str) -> str:
    """Return where a packet to `address` really goes: the unspecified address means this host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  the address is judged, not bound


def to_itself(raw: bytes, own: bytes) -> bytes:
    """Return the sockaddr that `::` stands for to a socket of the name `own`, any other as it is.

    Bound to an IPv4 address in IPv6 form, a socket means IPv4's loopback address by it (net/ipv6/udp.c, tcp_ipv6.c).
    """
    if family_of(own) != socket.AF_INET6 or own[8:20] != _MAPPED:
        return raw
    return _replaced(raw, 8, {bytes(16): _MAPPED + _LOOPBACK})


def directed(raw: bytes) -> bytes:
    """Return the internet sockaddr with the unspecified address spelled out as `destination` does.

    The kernel would pick the loopback address too, but for a socket that is bound to an address it picks that one.
    """
    if family_of(raw) == socket.AF_INET6:
        return _replaced(raw, 8, {bytes(16): _LOOPBACK6, _MAPPED + bytes(4): _MAPPED + _LOOPBACK})
    return _replaced(raw, 4, {bytes(4): _LOOPBACK})


def _replaced(raw: bytes, start: int, replacements: dict[bytes, bytes]) -> bytes:
    size = len(next(iter(replacements)))
    found = raw[start : start + size]
    return raw[:start] + replacements.get(found, found) + raw[start + size :]


def stays_here(raw: bytes) -> bool:
    """Whether what is sent to a sockaddr stays on this host: a Unix socket or a loopback address."""
    try:
        found = parse(raw)
    except AddressError:
        return False
    return is_loopback(found.address) if isinstance(found, Internet) else isinstance(found, Unix)


@lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    """Whether an address stays on this host."""
    return ipaddress.ip_address(address).is_loopback


def unix_address(path: bytes) -> bytes:
    """Return the sockaddr of a Unix socket path, without the NUL that the kernel adds.

    Raises:
        AddressError: longer than the 108 bytes that fit.
    """
    if len(path) > _UNIX_PATH:
        raise AddressError("path does not fit a sockaddr_un")
    return socket.AF_UNIX.to_bytes(_FAMILY_SIZE, "little") + path


def family_name(family: int) -> str:
    """Return a family's name as policies write it (`inet`, `netlink`), or its number."""
    return FAMILIES[family] if 0 <= family < len(FAMILIES) else str(family)
