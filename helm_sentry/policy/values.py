"""Single values of a policy file: text in, typed value out, `ValueError` with what to write instead."""

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

from helm_sentry.policy import pattern
from helm_sentry.policy.model import ANY_PORT, Network, PortRange

Value = TypeVar("Value")

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

MOST_USES = 100_000
"""The most that the limit of a rule counts: the time of each is kept."""

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9-]*")
_PREFIXED_IDENTIFIER = re.compile("[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE_GLOB = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_AMOUNT = re.compile(r"([0-9]{1,16})([A-Za-z]*)")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

# <linux/socket.h>, without the prefix AF_
# fmt: off
FAMILIES = (
    "unix", "inet", "ax25", "ipx", "appletalk", "netrom", "bridge", "atmpvc", "x25", "inet6",
    "rose", "decnet", "netbeui", "security", "key", "netlink", "packet", "ash", "econet", "atmsvc",
    "rds", "sna", "irda", "pppox", "wanpipe", "llc", "ib", "mpls", "can", "tipc", "bluetooth",
    "iucv", "rxrpc", "isdn", "phonet", "ieee802154", "caif", "alg", "nfc", "vsock", "kcm",
    "qipcrtr", "smc", "xdp", "mctp",
)
# fmt: on
"""Socket families that a rule may name."""

_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NETWORK_WORDS = {
    "any": (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")),
    "loopback": (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that `word` is probably a slip of, or the empty string."""
    # Only a policy with a mistake in it pays for this import.
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def on_gap(text: str) -> str:
    """Return `record` or `deny`."""
    if text not in ("record", "deny"):
        raise ValueError(unknown("value", text, ("record", "deny")))
    return text


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Return the error text for a word that is not one of the known ones."""
    words = list(known)
    if close := nearest(word, words):
        return f"unknown {what} `{word}`; did you mean `{close}`?"
    return f"unknown {what} `{word}`; " + (f"write one of {', '.join(words)}" if words else f"there is no {what} here")


def choice(what: str, choices: Mapping[str, Value]) -> Callable[[str], Value]:
    """Return a reader that accepts the keys of `choices`."""

    def read(text: str) -> Value:
        if text not in choices:
            raise ValueError(unknown(what, text, choices))
        return choices[text]

    return read


def identifier(text: str) -> str:
    """Read the name of a policy or the id of a rule."""
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"`{text}` is not an id; write lower-case letters, digits and `-`, a letter or digit first")
    return text


def prefixed_identifier(text: str) -> str:
    """Read the id of a rule in an effective policy; names of its pack and ceiling may stand before it."""
    return text if _PREFIXED_IDENTIFIER.fullmatch(text) else identifier(text)


def variable_name(text: str) -> str:
    """Read the name of a policy variable or an environment variable."""
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"`{text}` is not a variable name; write letters, digits and `_`, no digit first")
    return text


def variable_glob(text: str) -> str:
    """Read the name of an environment variable, in which `*` stands for any characters."""
    if not _VARIABLE_GLOB.fullmatch(text):
        raise ValueError(f"`{text}` is not the name of an environment variable; write one such as `PATH` or `LC_*`")
    return text


def word(text: str) -> str:
    """Read the name of an agent attribute."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"`{text}` is not a name; write letters, digits, `_`, `.` and `-`, a letter first")
    return text


def flag(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(f"`{text}` is neither `true` nor `false`")
    return text == "true"


def count(text: str) -> int:
    """Read a number of things."""
    if not re.fullmatch("[0-9]{1,16}", text) or not 0 < int(text) <= LARGEST:
        raise ValueError(f"`{text}` is not a number; write a whole number from 1, such as `64`")
    return int(text)


def uses(text: str) -> int:
    """Read how often a rule may be used."""
    if (number := count(text)) > MOST_USES:
        raise ValueError(f"`{text}` is more than is counted; write at most {MOST_USES}")
    return number


def text_pattern(text: str) -> str:
    """Read a pattern of an argument or a variable's value."""
    pattern.compile_text(text)
    return text


def size(text: str) -> int:
    """Read a number of bytes."""
    return _amount(text, _SIZE_UNITS, "a size; write a whole number with B, KiB, MiB, GiB or TiB, such as `2GiB`")


def duration(text: str) -> int:
    """Read a number of seconds."""
    return _amount(text, _TIME_UNITS, "a duration; write a whole number with s, m, h or d, such as `10m`")


def port_range(text: str) -> PortRange:
    """Read a port, a range of ports or the word `any`."""
    if text == "any":
        return ANY_PORT
    match = _PORTS.fullmatch(text)
    if not match:
        raise ValueError(f"`{text}` is not a port; write a number, a range such as `8000-9000`, or `any`")
    low, high = int(match[1]), int(match[2] or match[1])
    if high > ANY_PORT[1] or low > ANY_PORT[1]:
        raise ValueError(f"port `{max(low, high)}` is not in the range 0 to 65535")
    if low > high:
        raise ValueError(f"`{text}` is an empty range; write `{high}-{low}`")
    return low, high


def networks(text: str) -> tuple[Network, ...]:
    """Read an address, a network in CIDR form, or one of the words `loopback` and `any`."""
    if text in _NETWORK_WORDS:
        return _NETWORK_WORDS[text]
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"`{text}` is not an address; write one such as `10.0.0.1`, a network such as `10.0.0.0/8`, "
            "`loopback` or `any`; names go under `hosts`"
        ) from None
    address = ip_address(text.partition("/")[0])
    if address != network.network_address:
        raise ValueError(f"`{text}` has bits set beyond its prefix; write `{network}` or `{address}`")
    return (_unmapped(network),)


def host(text: str) -> str:
    """Read a host name, in lower case; a `*.` before it stands for all names beneath it."""
    if text == "*":
        raise ValueError("`*` is not a host name; write `addresses: [any]` for every destination")
    if text.startswith("*.") and "*" not in text[2:]:
        return "*." + host(text[2:])
    name = text.lower().removesuffix(".")
    if "*" in text:
        raise ValueError(f"`{text}` is not a host name; `*` stands only before the first dot, as in `*.example.com`")
    if _is_address(name):
        raise ValueError(f"`{text}` is an address; write it under `addresses`")
    if not name.isascii():
        raise ValueError(f"`{text}` is not ascii; write the name in its `xn--` form")
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise ValueError(f"`{text}` is not a host name; write one such as `api.example.com`")
    return name


def path(text: str) -> str:
    """Read a path pattern."""
    pattern.parse(text)
    return text


def _amount(text: str, units: Mapping[str, int], what: str) -> int:
    match = _AMOUNT.fullmatch(text)
    if not match or match[2] not in units:
        raise ValueError(f"`{text}` is not {what}")
    amount = int(match[1]) * units[match[2]]
    if not 0 < amount <= LARGEST:
        raise ValueError(f"`{text}` is out of range; write at least 1 and less than 2^53")
    return amount


# Operations carry IPv4 addresses as such, so a network of mapped addresses would match nothing.
def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv4Network) or network.prefixlen < 96:
        return network
    if (mapped := network.network_address.ipv4_mapped) is None:
        return network
    raise ValueError(f"`{network}` is IPv4 in disguise; write `{mapped}/{network.prefixlen - 96}`")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
