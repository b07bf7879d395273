"""Sending messages that carry an address or descriptors: copied out of the agent once, then sent by the supervisor."""

import errno
import fcntl
import os
import signal
import socket
from dataclasses import dataclass

from helm_sentry.abi import libc
from helm_sentry.abi.flags import MSG_FASTOPEN
from helm_sentry.abi.structs import MMSGHDR_SIZE, MSGHDR
from helm_sentry.broker.action import Action, Errno, Later, Value
from helm_sentry.broker.call import Call, Refused
from helm_sentry.broker.sockets import judge_destination, protocol_of, read_address
from helm_sentry.decode.messages import ControlError, ControlRefused, translate
from helm_sentry.intercept.process_tree import thread_group
from helm_sentry.operation import Kind

_CHUNK = 1 << 20  # bytes of a stream copied at a time
_MOST_CONTROL = 1 << 16
_MOST_MESSAGES = 1024  # UIO_MAXIOV, the kernel's cap for sendmmsg
_MOST_DATAGRAM = 1 << 24


@dataclass(slots=True)
class Message:
    """One message, its header copied and its payload still in the agent's memory.

    Attributes:
        name: destination sockaddr, ready to use, empty when there is none.
        buffers: (address, length) pairs of the payload.
        control: control data with the supervisor's descriptor numbers.
    """

    name: bytes
    buffers: list[tuple[int, int]]
    control: bytes

    @property
    def size(self) -> int:
        """Length of the payload in bytes."""
        return sum(length for _, length in self.buffers)


def sendto(call: Call) -> Action | Later:
    """sendto(2) with an address; without one the filter lets it through."""
    send_flags = call.uint32(3)
    ours = call.broker.duplicate(call, call.int32(0))
    name = b""
    if call.args[4]:
        raw = read_address(call, call.args[4], call.int32(5))
        name = _judged(call, ours, raw, send_flags)
    return _send(call, ours, Message(name, [(call.args[1], call.args[2])], b""), send_flags)


def sendmsg(call: Call) -> Action | Later:
    """sendmsg(2)."""
    send_flags = call.uint32(2)
    ours = call.broker.duplicate(call, call.int32(0))
    return _send(call, ours, _message(call, ours, call.args[1], send_flags), send_flags)


def sendmmsg(call: Call) -> Action | Later:
    """sendmmsg(2): each message is judged for itself; what follows a failed one is not sent."""
    send_flags = call.uint32(3)
    ours = call.broker.duplicate(call, call.int32(0))
    count = min(call.uint32(2), _MOST_MESSAGES)
    return Later(lambda: _send_many(call, ours, count, send_flags))


def _send_many(call: Call, ours: int, count: int, send_flags: int) -> Action:
    for index in range(count):
        header = call.args[1] + index * MMSGHDR_SIZE
        try:
            message = _message(call, ours, header, send_flags)
            action = _send_all(call, ours, message, send_flags)
        except Refused:
            if not index:
                raise
            call.broker.record(call, "value")
            return Value(index)
        except OSError:
            if not index:
                raise
            return Value(index)
        if not isinstance(action, Value):
            return action
        call.write(header + MSGHDR.size, action.number.to_bytes(4, "little"))
    return Value(count)


def _message(call: Call, ours: int, address: int, send_flags: int) -> Message:
    """Copy a msghdr and what it points to, except the payload."""
    name_at, name_size, vector, vector_size, control_at, control_size, _ = MSGHDR.unpack(
        call.read(address, MSGHDR.size)
    )
    name = b""
    if name_at and name_size:
        name = _judged(call, ours, read_address(call, name_at, min(name_size, 128)), send_flags)
    control = b""
    if control_at and control_size:
        if control_size > _MOST_CONTROL:
            raise OSError(errno.ENOBUFS, "too much control data")
        copied = bytes(call.broker.memory.read_large(call.tid, control_at, control_size))
        control = _translated(call, copied, control_size)
    return Message(name, call.broker.memory.read_vector(call.tid, vector, vector_size), control)


def _judged(call: Call, ours: int, raw: bytes, send_flags: int) -> bytes:
    connects = bool(send_flags & MSG_FASTOPEN)
    return judge_destination(call, Kind.NET_CONNECT if connects else Kind.NET_SEND, raw, protocol_of(ours))


def _translated(call: Call, control: bytes, size: int) -> bytes:
    if len(control) < size:
        raise OSError(errno.EFAULT, "short read")
    try:
        return translate(control, lambda number: call.broker.duplicate(call, number))
    except ControlError:
        raise OSError(errno.EINVAL, "bad control data") from None
    except ControlRefused:
        raise OSError(errno.EPERM, "control data is refused") from None


def _send(call: Call, ours: int, message: Message, send_flags: int) -> Action | Later:
    """Send at once what goes at once; whatever has to wait or is long goes to a worker."""
    if message.size <= _CHUNK:
        data = _payload(call, message, 0, message.size)
        try:
            sent = libc.sendmsg(
                ours, message.name, data, message.control, send_flags | _QUIET | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            if not _may_wait(ours, send_flags):
                raise
        except BrokenPipeError:
            return _broken_pipe(call, send_flags)
        else:
            if sent == len(data) or not _may_wait(ours, send_flags):
                return Value(sent)
            return Later(lambda: _send_all(call, ours, Message(b"", message.buffers, b""), send_flags, sent))
    return Later(lambda: _send_all(call, ours, message, send_flags))


_QUIET = socket.MSG_NOSIGNAL


def _send_all(call: Call, ours: int, message: Message, send_flags: int, sent: int = 0) -> Action:
    """Send the whole message, waiting as the agent's own call would have."""
    stream = _is_stream(ours)
    size = message.size
    if not stream and size > _MOST_DATAGRAM:
        raise OSError(errno.EMSGSIZE, "message is too long")
    while True:
        data = _payload(call, message, sent, min(size - sent, _CHUNK) if stream else size)
        try:
            taken = call.broker.workers.wait(
                call,
                lambda data=data: libc.sendmsg(
                    ours, message.name, data, message.control, send_flags | _QUIET
                ),  # type: ignore[misc]
            )
        except BrokenPipeError:
            return Value(sent) if sent else _broken_pipe(call, send_flags)
        except OSError:
            if not sent:
                raise
            return Value(sent)
        sent += taken
        if sent >= size or not stream or not _may_wait(ours, send_flags):
            return Value(sent)
        message.name = message.control = b""


def _payload(call: Call, message: Message, start: int, size: int) -> bytearray:
    """Copy part of the payload; it is not judged, so it may be read while it is sent."""
    data = bytearray()
    for address, length in message.buffers:
        if len(data) >= size:
            break
        if start >= length:
            start -= length
            continue
        wanted = min(length - start, size - len(data))
        part = call.broker.memory.read_large(call.tid, address + start, wanted)
        data += part
        if len(part) < wanted:
            raise OSError(errno.EFAULT, "short read")
        start = 0
    return data


def _broken_pipe(call: Call, send_flags: int) -> Action:
    """Answer EPIPE with the signal that comes with it."""
    if not send_flags & socket.MSG_NOSIGNAL:
        libc.tgkill(thread_group(call.tid), call.tid, signal.SIGPIPE)
    return Errno(errno.EPIPE)


def _may_wait(ours: int, send_flags: int) -> bool:
    return not send_flags & socket.MSG_DONTWAIT and not fcntl.fcntl(ours, fcntl.F_GETFL) & os.O_NONBLOCK


def _is_stream(ours: int) -> bool:
    borrowed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=ours)
    try:
        return borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    finally:
        borrowed.detach()


HANDLERS = {"sendto": sendto, "sendmsg": sendmsg, "sendmmsg": sendmmsg}
