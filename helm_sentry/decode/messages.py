"""Ancillary data of socket messages: control messages as sendmsg(2) lays them out. Pure."""

import socket
import struct
from collections.abc import Callable

from helm_sentry.abi.flags import SCM_CREDENTIALS, SCM_RIGHTS
from helm_sentry.abi.structs import CMSGHDR

_ALIGN = 8
_MOST_DESCRIPTORS = 253  # <net/scm.h> SCM_MAX_FD
# Control messages that name the addresses a packet takes on its way: <linux/in.h> IP_RETOPTS, <linux/in6.h>
# IPV6_2292RTHDR, IPV6_RTHDR. The other extension headers need a capability.
_ROUTING = {(socket.IPPROTO_IP, 7), (socket.IPPROTO_IPV6, 5), (socket.IPPROTO_IPV6, 57)}


class ControlError(ValueError):
    """The control data is malformed; the kernel answers EINVAL."""


class ControlRefused(Exception):
    """The control data asks for something an agent may not do; `str` says what: `credentials` or `route`."""


def translate(control: bytes, duplicate: Callable[[int], int], *, local: bool = False) -> bytes:
    """Return the same control data with the agent's descriptor numbers replaced by the supervisor's.

    Args:
        control: control data as copied from the agent.
        duplicate: takes a descriptor number of the agent and returns one of ours.
        local: it is for a Unix socket, which knows no other control messages of its level than these two.

    Raises:
        ControlError: malformed, or unknown to a Unix socket.
        ControlRefused: explicit credentials, which would name the supervisor, or a source route.
    """
    out, place, passed = b"", 0, 0
    while place + CMSGHDR.size <= len(control):
        length, level, kind = CMSGHDR.unpack_from(control, place)
        if length < CMSGHDR.size or place + length > len(control):
            raise ControlError("bad length")
        body = control[place + CMSGHDR.size : place + length]
        if (level, kind) in _ROUTING:
            raise ControlRefused("route")
        if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
            raise ControlRefused("credentials")
        if level == socket.SOL_SOCKET and kind == SCM_RIGHTS:
            passed += len(body) // 4
            if passed > _MOST_DESCRIPTORS:
                raise ControlError("too many descriptors")
            body = _replaced(body, duplicate)
        elif local and level == socket.SOL_SOCKET:
            raise ControlError("unknown to a Unix socket")
        entry = CMSGHDR.pack(CMSGHDR.size + len(body), level, kind) + body
        out += entry + bytes(-len(entry) % _ALIGN)
        place += length + -length % _ALIGN
    return out


def _replaced(body: bytes, duplicate: Callable[[int], int]) -> bytes:
    numbers = struct.unpack_from(f"={len(body) // 4}i", body)
    return struct.pack(f"={len(numbers)}i", *(duplicate(number) for number in numbers))
