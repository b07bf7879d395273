"""Sending messages that carry an address or descriptors: copied out of the agent once, then sent by the supervisor."""

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry.abi import libc
from helm_sentry.abi.flags import MSG_FASTOPEN, SOCKADDR_MAX, UIO_MAXIOV
from helm_sentry.abi.structs import MMSGHDR_SIZE, MSGHDR
from helm_sentry.broker.action import Action, Errno, Later, Value
from helm_sentry.broker.call import Call, Held, Refused
from helm_sentry.broker.sockets import (
    ROUTE,
    Lost,
    domain_of,
    judge_destination,
    protocol_of,
    read_address,
    remember_port,
)
from helm_sentry.decode.address import family_of, unix_address
from helm_sentry.decode.messages import ControlError, ControlRefused, translate
from helm_sentry.intercept.process_tree import thread_group
from helm_sentry.operation import Kind, Operation

MSG_ZEROCOPY, SO_ZEROCOPY = 0x4000000, 60  # <linux/socket.h>, <asm-generic/socket.h>
_MSG_CMSG_COMPAT = 0x80000000  # <linux/socket.h>
_QUIET = socket.MSG_NOSIGNAL  # the signal is the agent's
_CHUNK = 1 << 20  # bytes of a stream copied at a time
_WAITING_CHUNK = 1 << 16  # the same where many may wait at once
_NO_DESCRIPTOR = -1  # upon which a Unix socket answers EBADF; others do not look at it
_MOST_CONTROL = 1 << 16
_MOST_DATAGRAM = 1 << 24
_MOST_BYTES = 0x7FFFF000  # <linux/fs.h> MAX_RW_COUNT: what one call sends at most
_NOWHERE = unix_address(b"/proc/self/fd/-1")  # what no process has
_REFUSALS = {"route": ROUTE, "credentials": "credentials"}


@dataclass(slots=True)
class Message:
    """One message, its header copied and its payload still in the agent's memory.

    Attributes:
        name: destination sockaddr, ready to use, empty when there is none.
        buffers: (address, length) pairs of the payload.
        control: control data with the supervisor's descriptor numbers.
        lost: errno for a destination that is not there, 0 otherwise. The kernel finds out after what else is wrong with
            a message, so that is asked for by sending to nowhere.
    """

    name: bytes
    buffers: list[tuple[int, int]]
    control: bytes
    lost: int = 0

    @property
    def size(self) -> int:
        """Length of the payload in bytes."""
        return sum(length for _, length in self.buffers)


def sendto(call: Call) -> Action | Later:
    """sendto(2) with an address; without one the filter lets it through."""
    ours = call.broker.duplicate(call, call.int32(0))
    send_flags = _flags(ours, call.uint32(3) & ~_MSG_CMSG_COMPAT)
    message = Message(b"", [(call.args[1], min(call.args[2], _MOST_BYTES))], b"")
    if call.args[4]:
        _address(call, ours, message, read_address(call, call.args[4], call.int32(5)), send_flags)
    return _send(call, ours, message, send_flags)


def sendmsg(call: Call) -> Action | Later:
    """sendmsg(2)."""
    _refuse_compat(call.uint32(2))
    ours = call.broker.duplicate(call, call.int32(0))
    send_flags = _flags(ours, call.uint32(2))
    return _send(call, ours, _message(call, ours, call.args[1], send_flags), send_flags)


def sendmmsg(call: Call) -> Action | Later:
    """sendmmsg(2): each message is judged for itself; what follows a failed one is not sent."""
    _refuse_compat(call.uint32(3))
    ours = call.broker.duplicate(call, call.int32(0))
    send_flags = _flags(ours, call.uint32(3))
    count = min(call.uint32(2), UIO_MAXIOV)
    return Later(lambda: _send_many(call, ours, count, send_flags))


def _refuse_compat(send_flags: int) -> None:
    if send_flags & _MSG_CMSG_COMPAT:
        raise OSError(errno.EINVAL, "a flag of the kernel's own")


def _flags(ours: int, send_flags: int) -> int:
    """Return the flags without MSG_ZEROCOPY: the kernel would go on reading a buffer that is no longer the message.

    Raises:
        OSError: ENOTSOCK; ENOBUFS where it would have been honoured, upon which callers copy.
    """
    honoured = libc.socket_number(ours, SO_ZEROCOPY)
    if send_flags & MSG_ZEROCOPY and honoured:
        raise OSError(errno.ENOBUFS, "no zero-copy")
    return send_flags & ~MSG_ZEROCOPY


def _send_many(call: Call, ours: int, count: int, send_flags: int) -> Action:
    for index in range(count):
        held = len(call.keep)
        try:
            action = _send_one(call, ours, call.args[1] + index * MMSGHDR_SIZE, send_flags)
        except (Refused, Held, OSError) as error:
            if not index:
                raise
            if isinstance(error, Refused):
                call.broker.record(call, "value")
            return Value(index)
        finally:
            _release(call.keep, held)
        if action.code:
            return Value(index) if index else action
    return Value(count)


def _send_one(call: Call, ours: int, header: int, send_flags: int) -> Action:
    action = _send_all(call, ours, _message(call, ours, header, send_flags), send_flags)
    if isinstance(action, Value):
        call.write(header + MSGHDR.size, action.number.to_bytes(4, "little"))
    return action


def _release(keep: list[int], held: int) -> None:
    """Close what was held for one message of many."""
    for descriptor in keep[held:]:
        os.close(descriptor)
    del keep[held:]


def _message(call: Call, ours: int, address: int, send_flags: int) -> Message:
    """Copy a msghdr and what it points to, except the payload."""
    name_at, name_size, vector, vector_size, control_at, control_size, _ = MSGHDR.unpack(
        call.read(address, MSGHDR.size)
    )
    raw = b""
    if name_at and name_size:
        if name_size >> 31:
            raise OSError(errno.EINVAL, "negative length")
        raw = read_address(call, name_at, min(name_size, SOCKADDR_MAX))
    buffers = call.broker.memory.read_vector(call.tid, vector, vector_size)
    call.copy(repr(buffers).encode())
    if any(length >> 63 for _, length in buffers):
        raise OSError(errno.EINVAL, "negative length")
    message = Message(b"", buffers, _control(call, ours, control_at, control_size))
    if raw:  # last, because the record of an allowed destination says that the message goes there
        _address(call, ours, message, raw, send_flags)
    return message


def _address(call: Call, ours: int, message: Message, raw: bytes, send_flags: int) -> None:
    """Judge where a message goes and address it."""
    try:
        message.name = _destination(call, ours, raw, send_flags, message.size)
    except Lost as lost:
        message.name, message.lost = _NOWHERE, lost.errno or errno.ENOENT


def _destination(call: Call, ours: int, raw: bytes, send_flags: int, size: int) -> bytes:
    """Judge where a message goes, unless to its peer; return the sockaddr to use."""
    domain, protocol = domain_of(ours), protocol_of(ours)
    family = family_of(raw) if len(raw) > 1 else None
    if protocol == "tcp":
        if not send_flags & MSG_FASTOPEN:
            return b""
        if family == socket.AF_UNSPEC:
            raise OSError(errno.EOPNOTSUPP, "no address family")
        return judge_destination(call, Kind.NET_CONNECT, raw, ours, domain, protocol, size)
    unread = libc.socket_number(ours, socket.SO_TYPE) != socket.SOCK_DGRAM or not raw  # by a Unix socket
    if (domain == socket.AF_INET6 and family == socket.AF_UNSPEC) or (domain == socket.AF_UNIX and unread):
        call.operations = ()  # no address at all: it goes to the peer, or fails
        return raw
    return judge_destination(call, Kind.NET_SEND, raw, ours, domain, protocol, size)


def _control(call: Call, ours: int, address: int, size: int) -> bytes:
    """Copy control data, with the agent's descriptors replaced by duplicates.

    Raises:
        Refused: it asks for what an agent may not do.
        OSError: as the kernel gives it.
    """
    if not size:
        return b""
    if size > _MOST_CONTROL:
        raise OSError(errno.ENOBUFS, "too much control data")
    copied = call.copy(bytes(call.broker.memory.read_large(call.tid, address, size)))
    if len(copied) < size:
        raise OSError(errno.EFAULT, "short read")
    local = domain_of(ours) == socket.AF_UNIX
    # Here it is looked at before the destination; elsewhere the kernel may have something to say before that.
    first = local and libc.socket_number(ours, socket.SO_TYPE) == socket.SOCK_DGRAM

    def passed(number: int) -> int:
        try:
            return call.broker.duplicate(call, number) if local else _NO_DESCRIPTOR
        except OSError:
            if first:
                raise
            return _NO_DESCRIPTOR

    try:
        return translate(copied, passed, local=first)
    except ControlError:
        raise OSError(errno.EINVAL, "bad control data") from None
    except ControlRefused as refusal:
        call.judge(Operation(Kind.NET_SOCKET, name=_REFUSALS[str(refusal)]), refusal=errno.EPERM)
        raise


def _send(call: Call, ours: int, message: Message, send_flags: int) -> Action | Later:
    """Send at once what goes at once; whatever has to wait or is long goes to a worker."""
    waits = _may_wait(ours, send_flags)
    # An attempt that may not wait would begin to connect and could not be repeated.
    if message.size > _CHUNK or (send_flags & MSG_FASTOPEN and waits):
        return Later(lambda: _send_all(call, ours, message, send_flags))
    data = _payload(call, message, 0, message.size)
    try:
        sent = _attempt(ours, message, data, message.size - len(data), send_flags | socket.MSG_DONTWAIT)()
    except BlockingIOError:
        if not waits:
            raise
        return Later(lambda: _send_all(call, ours, message, send_flags))
    except BrokenPipeError:
        return _broken_pipe(call, ours, send_flags)
    _sent(call, ours, message, sent)
    if sent == len(data) or not waits:
        return Value(sent)
    return Later(lambda: _send_all(call, ours, Message(b"", message.buffers, b""), send_flags, sent))


def _sent(call: Call, ours: int, message: Message, size: int) -> None:
    if message.name:
        remember_port(call, ours, protocol_of(ours))
        if call.operations and call.operations[0].kind is Kind.NET_SEND:
            call.broker.traffic.sent(call.sequence, call.operations[0], size)


def _send_all(call: Call, ours: int, message: Message, send_flags: int, sent: int = 0) -> Action:
    """Send the whole message, waiting as the agent's own call would have."""
    stream = _is_stream(ours)
    size = min(message.size, _MOST_BYTES)
    if not stream and size > _MOST_DATAGRAM:
        raise OSError(errno.EMSGSIZE, "message is too long")
    while True:
        try:
            wanted = min(size - sent, _WAITING_CHUNK) if stream else size
            data = _payload(call, message, sent, wanted)
            part = call.broker.workers.wait(call, _attempt(ours, message, data, wanted - len(data), send_flags))
        except BrokenPipeError:
            return Value(sent) if sent else _broken_pipe(call, ours, send_flags)
        except OSError:
            if not sent:
                raise
            return Value(sent)
        sent += part
        _sent(call, ours, message, part)
        if sent >= size or not stream or not _may_wait(ours, send_flags):
            return Value(sent)
        message.name = message.control = b""
        send_flags &= ~MSG_FASTOPEN


def _attempt(ours: int, message: Message, data: bytearray, unreadable: int, send_flags: int) -> Callable[[], int]:
    def attempt() -> int:
        try:
            return libc.sendmsg(ours, message.name, data, message.control, send_flags | _QUIET, unreadable)
        except FileNotFoundError:
            raise OSError(message.lost or errno.ENOENT, "no such socket") from None

    return attempt


def _payload(call: Call, message: Message, start: int, size: int) -> bytearray:
    """Copy part of the payload, as far as it can be read; it is not judged, so it may be read while it is sent."""
    data = bytearray()
    for address, length in message.buffers:
        if len(data) >= size:
            break
        if start >= length:
            start -= length
            continue
        wanted = min(length - start, size - len(data))
        part = _readable(call, address + start, wanted)
        data += part
        if len(part) < wanted:
            break
        start = 0
    return data


def _readable(call: Call, address: int, size: int) -> bytearray:
    try:
        return call.broker.memory.read_large(call.tid, address, size)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return bytearray()


def _broken_pipe(call: Call, ours: int, send_flags: int) -> Action:
    """Answer EPIPE with the signal that comes with it."""
    if not send_flags & socket.MSG_NOSIGNAL and _is_stream(ours):
        libc.tgkill(thread_group(call.tid), call.tid, signal.SIGPIPE)
    return Errno(errno.EPIPE)


def _may_wait(ours: int, send_flags: int) -> bool:
    return not send_flags & socket.MSG_DONTWAIT and not fcntl.fcntl(ours, fcntl.F_GETFL) & os.O_NONBLOCK


def _is_stream(ours: int) -> bool:
    return libc.socket_number(ours, socket.SO_TYPE) == socket.SOCK_STREAM


HANDLERS = {"sendto": sendto, "sendmsg": sendmsg, "sendmmsg": sendmmsg}
