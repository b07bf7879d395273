"""Sockets: the supervisor acts on a duplicate of the agent's own socket, with an address copied once."""

import errno
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
from helm_sentry.decode.operations import file_operation
from helm_sentry.intercept.process_tree import umask_of
from helm_sentry.native.library import Attempt
from helm_sentry.operation import Kind, Operation

_INTERNET = (sockets.AF_INET, sockets.AF_INET6)
_TAKEN: dict[int, tuple[int, ...]] = {
    sockets.AF_UNIX: (sockets.AF_UNIX,),
    **dict.fromkeys(_INTERNET, (*_INTERNET, AF_UNSPEC)),
}
_TYPE_MASK = 0xF  # the rest of the type argument is SOCK_NONBLOCK and SOCK_CLOEXEC
# UDP-Lite (RFC 3828) is UDP to everything a rule can say: the same calls, addresses and ports.
_PROTOCOLS = {sockets.IPPROTO_TCP: "tcp", sockets.IPPROTO_UDP: "udp", sockets.IPPROTO_UDPLITE: "udp"}
_SHORTEST = 2  # a family alone
_LONGEST_NAME = 110  # sizeof(struct sockaddr_un); the kernel adds a NUL to a name that fills it
_LONGEST_LINK = 108  # sizeof(sun_path)
_NAME_SERVER = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/name-server")
_PLAIN_SOCKET = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/plain-socket")
# Options that name the addresses a packet takes on its way, which nobody judges: <linux/in.h> IP_OPTIONS, <linux/in6.h>
# IPV6_2292RTHDR, IPV6_2292PKTOPTIONS, IPV6_RTHDR. The other extension headers need a capability.
_ROUTING = {(sockets.IPPROTO_IP, 4), *((sockets.IPPROTO_IPV6, option) for option in (5, 6, 57))}
ROUTE = "ip-options"
"""Stands for a family in the operation of asking for a source route; no rule can name it."""


def socket(call: Call) -> Action:
    """socket(2). A plain TCP, UDP or Unix socket reaches nothing until it is connected or bound."""
    family, kind, protocol = call.int32(0), call.int32(1) & _TYPE_MASK, call.int32(2)
    operation = Operation(Kind.NET_SOCKET, name=addresses.family_name(family))
    internet = family in _INTERNET and (kind, protocol) in {
        (sockets.SOCK_STREAM, 0),
        (sockets.SOCK_STREAM, sockets.IPPROTO_TCP),
        (sockets.SOCK_DGRAM, 0),
        (sockets.SOCK_DGRAM, sockets.IPPROTO_UDP),
        (sockets.SOCK_DGRAM, sockets.IPPROTO_UDPLITE),
    }
    if internet or family == sockets.AF_UNIX:
        judge_unless_blocked(call, _PLAIN_SOCKET, operation)
        call.broker.repeat_going_on(call)
    else:
        name = operation.name if family not in _INTERNET else f"{operation.name}/{kind}/{protocol}"
        call.judge(Operation(Kind.NET_SOCKET, name=name))
    return Continue()


def judge_unless_blocked(call: Call, builtin: Decision, operation: Operation) -> None:
    """Take a decision that needs no rule, unless a rule of the policy blocks the operation."""
    if call.decide(operation).reason not in (Reason.RULE, Reason.DEFAULT):
        call.judge(operation)
    call.judge_builtin(builtin, operation)


def setsockopt(call: Call) -> Action:
    """setsockopt(2) at the IP levels: every option but those that reroute packets."""
    if (call.int32(1), call.int32(2)) in _ROUTING:
        call.judge(Operation(Kind.NET_SOCKET, name=ROUTE), refusal=errno.EPERM)
    return Continue()


def connect(call: Call) -> Action | Later:
    """connect(2)."""
    ours = call.broker.duplicate(call, call.int32(0))
    raw = read_address(call, call.args[1], call.int32(2))
    domain, protocol = domain_of(ours), protocol_of(ours)
    if _family(raw) == AF_UNSPEC and domain in (*_INTERNET, sockets.AF_UNIX):
        if protocol == "tcp":
            call.broker.traffic.dissolves(ours)
        libc.connect(ours, raw)  # dissolves the association
        return SUCCESS
    asked, raw = raw, judge_destination(call, Kind.NET_CONNECT, raw, ours, domain, protocol)
    # O_NONBLOCK says nothing: another thread can clear it between a look and the call.
    if protocol == "udp":
        libc.connect(ours, raw)
        remember_port(call, ours, protocol)
        return SUCCESS
    attempt = Attempt.NONE
    if (brief := call.broker.brief) and addresses.stays_here(raw):
        call.broker.connects.repeat(call, domain, asked, raw)
        attempt = brief.connect(ours, raw)
    return SUCCESS if attempt is Attempt.DONE else connect_waiting(call, ours, raw, begun=attempt is Attempt.BEGUN)


def connect_waiting(call: Call, ours: int, raw: bytes, *, begun: bool) -> Later:
    """Return the connect of a socket that may take its time; `begun`: one was interrupted for this very call."""
    return Later(lambda: _connect_waiting(call, ours, raw, begun))


def bind(call: Call) -> Action:
    """bind(2)."""
    ours = call.broker.duplicate(call, call.int32(0))
    protocol = protocol_of(ours)
    raw = read_address(call, call.args[1], call.int32(2))
    match _meaning(domain_of(ours), protocol, raw, unspecified_is_inet=True):
        case None:
            libc.bind(ours, raw)
        case Internet(address, port):
            call.judge(Operation(Kind.NET_BIND, address=address, port=port, protocol=protocol), effect=True)
            libc.bind(ours, raw)
            call.broker.own_ports.add(ours, protocol)
        case Unix(path, _) if path:
            _bind_path(call, ours, path)
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
    if domain_of(ours) == sockets.AF_UNIX:
        call.judge_builtin(OWN_OBJECT, Operation(Kind.UNIX_BIND, name="listen"))
        libc.listen(ours, call.int32(1))
        return SUCCESS
    match addresses.parse(libc.socket_name(ours, peer=False)):
        case Internet(address, port):
            protocol = protocol_of(ours)
            operation = Operation(Kind.NET_BIND, address=address, port=port, protocol=protocol)
            if call.broker.own_ports.bound(ours, port, protocol):  # judged then, perhaps as `any free port`
                call.judge_builtin(OWN_OBJECT, operation)
            else:
                call.judge(operation, effect=True)
            libc.listen(ours, call.int32(1))
            call.broker.own_ports.add(ours, protocol)
        case Unix() | Other():
            call.judge(Operation(Kind.NET_SOCKET, name=addresses.family_name(domain_of(ours))), effect=True)
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
    return call.read(pointer, length) if length else b""


class Lost(OSError):
    """The path to a Unix socket leads nowhere, which the agent may know."""


def judge_destination(
    call: Call, kind: Kind, raw: bytes, ours: int, domain: int, protocol: str, size: int = 0
) -> bytes:
    """Judge where a connect or a message of `size` bytes goes; return the sockaddr to use: it names a pinned object.

    Raises:
        Lost: there is no object.
        OSError: EINVAL, EAFNOSUPPORT.
    """
    if _family(raw) == sockets.AF_INET6:
        raw = addresses.to_itself(raw, libc.socket_name(ours, peer=False))
    match _meaning(domain, protocol, raw, unspecified_is_inet=kind is Kind.NET_SEND):
        case None:
            return raw
        case Internet(address, port):
            operation = call.broker.internet_operation(kind, address, port, protocol, size)
            server = call.broker.names.server
            if server and server.serves(address, port, operation.protocol):
                judge_unless_blocked(call, _NAME_SERVER, operation)
                call.before_effect()
                return server.redirected(raw)
            call.judge(operation, effect=True)
            call.broker.traffic.begins(ours, call.sequence, operation)
            return addresses.directed(raw)
        case Unix(unnamed=True):
            raise OSError(errno.EINVAL, "no name")
        case Unix(path, _) if path:
            pinned = call.pin(AT_FDCWD, call.broker.own_ports.unix.meant(path))
            if pinned.error:  # to say so is to let the agent look, no more
                call.judge(file_operation(Kind.FILE_STAT, pinned.path))
                raise Lost(pinned.error, os.strerror(pinned.error))
            call.judge(Operation(Kind.UNIX_CONNECT, path=pinned.path), effect=True)
            return addresses.unix_address(pinned.link)
        case Unix(_, abstract):
            call.judge(Operation(Kind.UNIX_CONNECT, name="@" + os.fsdecode(abstract)), effect=True)
            return raw
        case Other(family):
            call.judge(Operation(Kind.NET_SOCKET, name=addresses.family_name(family)), effect=True)
            return raw


def remember_port(call: Call, ours: int, protocol: str) -> None:
    """Remember the port that a datagram socket was given because it needed one: answers to it go to this run."""
    if protocol == "udp":
        call.broker.own_ports.add(ours, protocol)


def domain_of(descriptor: int) -> int:
    """Return a socket's address family.

    Raises:
        OSError: ENOTSOCK when it is not a socket.
    """
    return libc.socket_number(descriptor, sockets.SO_DOMAIN)


def protocol_of(descriptor: int) -> str:
    """Return `tcp`, `udp`, or the protocol number of a socket that is of neither sort."""
    number = libc.socket_number(descriptor, sockets.SO_PROTOCOL)
    return _PROTOCOLS.get(number, str(number))


def _meaning(domain: int, protocol: str, raw: bytes, unspecified_is_inet: bool) -> Internet | Unix | Other | None:
    """Return what an address is to a socket; None where the kernel refuses it and knows which error comes first.

    TCP, UDP and Unix sockets take addresses of their own families, and whole ones. Of other protocols nobody knows.

    Raises:
        OSError: EINVAL, EAFNOSUPPORT.
    """
    if not raw:  # which the kernel would take for no address
        raise OSError(errno.EINVAL, "not an address")
    try:
        family = addresses.family_of(raw)
        if family in _TAKEN.get(domain, (family,)):
            return addresses.parse(raw, unspecified_is_inet)
        code = errno.EAFNOSUPPORT
    except AddressError:
        code = errno.EINVAL
    if domain == sockets.AF_UNIX or protocol in _PROTOCOLS.values():
        return None
    raise OSError(code, os.strerror(code))


def _family(raw: bytes) -> int:
    return addresses.family_of(raw) if len(raw) >= _SHORTEST else -1


def _connect_waiting(call: Call, ours: int, raw: bytes, begun: bool) -> Action:
    def attempt() -> int:
        try:
            libc.connect(ours, raw)
        except OSError as error:
            if begun and error.errno == errno.EALREADY:  # SO_SNDTIMEO is over: to the agent this is the first attempt
                raise OSError(errno.EINPROGRESS, "not connected in time") from None
            raise
        return 0

    call.broker.workers.wait(call, attempt)
    return SUCCESS


def _bind_path(call: Call, ours: int, path: bytes) -> None:
    """Bind a Unix socket in its pinned directory; the name the agent wrote is kept for getsockname."""
    place = call.place(AT_FDCWD, path)
    call.judge(Operation(Kind.UNIX_BIND, path=place.path), effect=not place.error)
    call.require(place)
    if place.descriptor >= 0:
        raise OSError(errno.EADDRINUSE, "the name of a directory")
    os.umask(umask_of(call.tid))
    if path == place.leaf:
        _bind_in(place.parent, ours, path)
        return
    names = call.broker.own_ports.unix
    link = names.link(place.parent, place.leaf)
    if len(link) > _LONGEST_LINK:
        link = place.leaf
        _bind_in(place.parent, ours, link)
    else:
        libc.bind(ours, addresses.unix_address(link))
    names.add(link, path)


def _bind_in(directory: int, ours: int, leaf: bytes) -> None:
    """Bind by a bare name, from inside the directory: this thread has a working directory of its own."""
    os.fchdir(directory)
    try:
        libc.bind(ours, addresses.unix_address(leaf))
    finally:
        os.chdir("/")


def _name(call: Call, peer: bool) -> Action:
    """Report a socket's address; a brokered Unix bind is reported as the agent wrote it."""
    ours = call.broker.duplicate(call, call.int32(0))
    name = libc.socket_name(ours, peer)
    match addresses.parse(name[:_LONGEST_NAME]):
        case Unix(path, _) if path:
            name = addresses.unix_address(call.broker.own_ports.unix.written(path)) + b"\0"
    room = int.from_bytes(call.read(call.args[2], 4), "little", signed=True)
    if room < 0:
        raise OSError(errno.EINVAL, "negative length")
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
