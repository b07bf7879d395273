"""Ancillary data of socket messages: control messages as sendmsg(2) lays them out. Pure."""

import socket
import struct
from collections.abc import Callable

from helm_sentry.abi.flags import SCM_CREDENTIALS, SCM_RIGHTS
from helm_sentry.abi.structs import CMSGHDR

_ALIGN = 8
_IP_RETOPTS = 7  # <linux/in.h>: IP options on one message, source routes among them


class ControlError(ValueError):
    """The control data is malformed; the kernel answers EINVAL."""


class ControlRefused(Exception):
    """The control data asks for something an agent may not do."""


def translate(control: bytes, duplicate: Callable[[int], int]) -> bytes:
    """Return the same control data with the agent's descriptor numbers replaced by the supervisor's.

    Args:
        control: control data as copied from the agent.
        duplicate: takes a descriptor number of the agent and returns one of ours.

    Raises:
        ControlError: malformed.
        ControlRefused: explicit credentials, which would name the supervisor, or a source route.
    """
    out, place = b"", 0
    while place + CMSGHDR.size <= len(control):
        length, level, kind = CMSGHDR.unpack_from(control, place)
        if length < CMSGHDR.size or place + length > len(control):
            raise ControlError("bad length")
        body = control[place + CMSGHDR.size : place + length]
        if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
            raise ControlRefused("credentials")
        if level == socket.IPPROTO_IP and kind == _IP_RETOPTS:
            raise ControlRefused("source route")
        if level == socket.SOL_SOCKET and kind == SCM_RIGHTS:
            count = len(body) // 4
            body = b"".join(struct.pack("=i", duplicate(n)) for n in struct.unpack_from(f"={count}i", body))
        entry = CMSGHDR.pack(CMSGHDR.size + len(body), level, kind) + body
        out += entry + bytes(-len(entry) % _ALIGN)
        place += length + -length % _ALIGN
    return out
