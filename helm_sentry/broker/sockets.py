"""Sockets: the supervisor acts on a duplicate of the agent's own socket, with an address copied once."""

import errno
import fcntl
import os
import socket as sockets

from helm_sentry.abi import libc
from helm_sentry.abi.flags import AT_FDCWD, SOCKADDR_MAX
from helm_sentry.broker.action import SUCCESS, Action, Continue, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.files import OWN_OBJECT
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode import address as addresses
from helm_sentry.decode.address import AF_UNSPEC, AddressError, Internet, Other, Unix
from helm_sentry.intercept.process_tree import umask_of
from helm_sentry.operation import Kind, Operation

_INTERNET = (sockets.AF_INET, sockets.AF_INET6)
_TYPE_MASK = 0xF  # the rest of the type argument is SOCK_NONBLOCK and SOCK_CLOEXEC
_PROTOCOLS = {sockets.IPPROTO_TCP: "tcp", sockets.IPPROTO_UDP: "udp"}
_PLAIN_SOCKET = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/plain-socket")
_IP_OPTIONS = 4  # <linux/in.h>: source routes among them, which send packets to an address nobody judged


def socket(call: Call) -> Action:
    """socket(2). A plain TCP, UDP or Unix socket reaches nothing until it is connected or bound."""
    family, kind, protocol = call.int32(0), call.int32(1) & _TYPE_MASK, call.int32(2)
    operation = Operation(Kind.NET_SOCKET, name=addresses.family_name(family))
    internet = family in _INTERNET and (kind, protocol) in {
        (sockets.SOCK_STREAM, 0),
        (sockets.SOCK_STREAM, sockets.IPPROTO_TCP),
        (sockets.SOCK_DGRAM, 0),
        (sockets.SOCK_DGRAM, sockets.IPPROTO_UDP),
    }
    if internet or family == sockets.AF_UNIX:
        call.judge_builtin(_PLAIN_SOCKET, operation)
    else:
        name = operation.name if family not in _INTERNET else f"{operation.name}/{kind}/{protocol}"
        call.judge(Operation(Kind.NET_SOCKET, name=name))
    return Continue()


def setsockopt(call: Call) -> Action:
    """setsockopt(2) at the IP level: every option but the one that reroutes packets."""
    if call.int32(2) == _IP_OPTIONS:
        call.judge(Operation(Kind.NET_SOCKET, name="ip-options"), refusal=errno.EPERM)
    return Continue()


def connect(call: Call) -> Action | Later:
    """connect(2)."""
    raw = read_address(call, call.args[1], call.int32(2))
    ours = call.broker.duplicate(call, call.int32(0))
    domain, protocol = domain_of(ours), protocol_of(ours)
    if addresses.family_of(raw) == AF_UNSPEC and domain in _INTERNET:
        libc.connect(ours, raw)  # dissolves the association
        return SUCCESS
    raw = judge_destination(call, Kind.NET_CONNECT, raw, protocol)
    if protocol == "udp" or fcntl.fcntl(ours, fcntl.F_GETFL) & os.O_NONBLOCK:
        libc.connect(ours, raw)
        return SUCCESS
    return Later(lambda: _connect_waiting(call, ours, raw))


def bind(call: Call) -> Action:
    """bind(2)."""
    raw = read_address(call, call.args[1], call.int32(2))
    ours = call.broker.duplicate(call, call.int32(0))
    protocol = protocol_of(ours)
    match _parse(raw, unspecified_is_inet=True):
        case Internet(address, port):
            call.judge(Operation(Kind.NET_BIND, address=address, port=port, protocol=protocol), effect=True)
            libc.bind(ours, raw)
            call.broker.own_ports.add(ours, protocol)
        case Unix(path, _) if path:
            _bind_path(call, ours, raw, path)
        case Unix(_, abstract):
            call.judge(Operation(Kind.UNIX_BIND, name="@" + os.fsdecode(abstract)), effect=True)
            libc.bind(ours, raw)
        case Other(family):
            call.judge(Operation(Kind.NET_SOCKET, name=addresses.family_name(family)), effect=True)
            libc.bind(ours, raw)
    return SUCCESS


def listen(call: Call) -> Action:
    """listen(2); on a socket that was never bound it binds one to a port of the kernel's choice."""
    ours = call.broker.duplicate(call, call.int32(0))
    name = libc.socket_name(ours, peer=False)
    match addresses.parse(name):
        case Internet(address, port):
            operation = Operation(Kind.NET_BIND, address=address, port=port, protocol=protocol_of(ours))
            call.judge(operation, effect=True)
            libc.listen(ours, call.int32(1))
            call.broker.own_ports.add(ours, "tcp")
        case _:
            call.judge_builtin(OWN_OBJECT, Operation(Kind.UNIX_BIND, name="listen"))
            libc.listen(ours, call.int32(1))
    return SUCCESS


def getsockname(call: Call) -> Action:
    """getsockname(2)."""
    return _name(call, peer=False)


def getpeername(call: Call) -> Action:
    """getpeername(2)."""
    return _name(call, peer=True)


def read_address(call: Call, pointer: int, length: int) -> bytes:
    """Copy a sockaddr out of the agent's memory.

    Raises:
        OSError: EINVAL for a length the kernel would refuse.
    """
    if length < 0 or length > SOCKADDR_MAX:
        raise OSError(errno.EINVAL, "bad address length")
    raw = call.read(pointer, length) if length else b""
    if length < 2:
        raise OSError(errno.EINVAL, "no address family")
    return raw


def judge_destination(call: Call, kind: Kind, raw: bytes, protocol: str) -> bytes:
    """Judge where a connect or send goes; return the sockaddr to use, which names the pinned object."""
    match _parse(raw, unspecified_is_inet=kind is Kind.NET_SEND):
        case Internet(address, port):
            call.judge(call.broker.internet_operation(kind, address, port, protocol), effect=True)
            return raw
        case Unix(path, _) if path:
            pinned = call.pin(AT_FDCWD, path)
            call.judge(Operation(Kind.UNIX_CONNECT, path=pinned.path), effect=not pinned.error)
            call.require(pinned)
            return addresses.unix_address(pinned.link)
        case Unix(_, abstract):
            call.judge(Operation(Kind.UNIX_CONNECT, name="@" + os.fsdecode(abstract)), effect=True)
            return raw
        case Other(family):
            call.judge(Operation(Kind.NET_SOCKET, name=addresses.family_name(family)), effect=True)
            return raw


def domain_of(descriptor: int) -> int:
    """Return a socket's address family.

    Raises:
        OSError: ENOTSOCK when it is not a socket.
    """
    return _option(descriptor, sockets.SO_DOMAIN)


def protocol_of(descriptor: int) -> str:
    """Return `tcp`, `udp`, or the protocol number of a socket."""
    number = _option(descriptor, sockets.SO_PROTOCOL)
    return _PROTOCOLS.get(number, str(number))


def _option(descriptor: int, option: int) -> int:
    borrowed = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM, 0, fileno=descriptor)
    try:
        return borrowed.getsockopt(sockets.SOL_SOCKET, option)
    finally:
        borrowed.detach()


def _parse(raw: bytes, unspecified_is_inet: bool) -> Internet | Unix | Other:
    try:
        return addresses.parse(raw, unspecified_is_inet)
    except AddressError:
        raise OSError(errno.EINVAL, "short address") from None


def _connect_waiting(call: Call, ours: int, raw: bytes) -> Action:
    def attempt() -> int:
        libc.connect(ours, raw)
        return 0

    call.broker.workers.wait(call, attempt)
    return SUCCESS


def _bind_path(call: Call, ours: int, raw: bytes, path: bytes) -> None:
    """Bind a Unix socket in its pinned directory; the name the agent wrote is kept for getsockname."""
    place = call.place(AT_FDCWD, path)
    call.judge(Operation(Kind.UNIX_BIND, path=place.path), effect=not place.error)
    call.require(place)
    os.umask(umask_of(call.tid))
    try:
        name = addresses.unix_address(b"/proc/self/fd/%d/%b" % (place.parent, place.leaf))
    except AddressError:
        raise OSError(errno.ENAMETOOLONG, "socket name is too long") from None
    libc.bind(ours, name)
    call.broker.unix_names[name.rstrip(b"\0")] = raw


def _name(call: Call, peer: bool) -> Action:
    """Report a socket's address; a brokered Unix bind is reported as the agent wrote it."""
    ours = call.broker.duplicate(call, call.int32(0))
    name = libc.socket_name(ours, peer)
    room = int.from_bytes(call.read(call.args[2], 4), "little", signed=True)
    if room < 0:
        raise OSError(errno.EINVAL, "negative length")
    name = call.broker.unix_names.get(name.rstrip(b"\0"), name)
    call.write(call.args[1], name[:room])
    call.write(call.args[2], len(name).to_bytes(4, "little"))
    return SUCCESS


HANDLERS = {
    "socket": socket,
    "setsockopt": setsockopt,
    "connect": connect,
    "bind": bind,
    "listen": listen,
    "getsockname": getsockname,
    "getpeername": getpeername,
}
