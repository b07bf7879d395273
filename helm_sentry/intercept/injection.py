"""Calls that a stopped thread makes in place of its own: how a descriptor reaches the agent without a listener.

The supervisor sends the descriptor through a socket pair whose other end every process of the agent has, under a number
that the filter hides from it: only a recvmsg that has a secret in the half of the register that the kernel ignores gets
through. It has the caller receive it: recvmsg(2) installs it at the lowest free number, as
open(2) does. The caller is stopped before and after, and nobody waits in between but for the processor.

The message's header lies in one page of the caller's own memory. Its other threads may write there; what they spoil is
the number that this very process is told, or a descriptor that this very run was allowed. Nothing is decided by it.
"""

import array
import errno
import mmap
import os
import resource
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from helm_sentry.abi import flags, libc, structs, syscalls
from helm_sentry.abi.arch import Arch
from helm_sentry.errors import FeatureError
from helm_sentry.intercept.stops import What, classify

PLACE = 0x10F5_E27B_0000
"""Where the page lies: far from where programs, loaders and the kernel put things by themselves."""
_NUMBER = 1100
TRIED = 4242
"""What a call returns whose last register holds the channel's key: the tracer has seen it, and nothing was done."""
_PAGE = 4096
_MARK = b"helm-sentry page"
_HEADER = PLACE + 16
_VECTOR = _HEADER + structs.MSGHDR.size
_CONTROL = _VECTOR + structs.IOVEC.size
_DATA = _CONTROL + 24  # CMSG_SPACE(sizeof(int))
_RECEIVED = struct.Struct("=16x48xi4x16x16xi")  # msg_flags of the header, and the descriptor in the control message
_BLANK = (
    _MARK
    + structs.MSGHDR.pack(0, 0, _VECTOR, 1, _CONTROL, 24, 0)
    + structs.IOVEC.pack(_DATA, 1)
    + structs.CMSGHDR.pack(0, 0, 0)
    + (-1).to_bytes(4, "little", signed=True)
)
_TRUNCATED = socket.MSG_CTRUNC
_MOST_ERRNO = 4095
_UNMAPPED = (errno.EFAULT, errno.EIO)


@dataclass(frozen=True, slots=True)
class Channel:
    """The socket pair of a run.

    Attributes:
        ours: the end that descriptors are sent into.
        theirs: the agent's end, for taking back what was not received.
        key: number of that end in every process of the agent, with the secret in the high word.
    """

    ours: socket.socket
    theirs: socket.socket
    key: int

    @property
    def number(self) -> int:
        """Number of the agent's end in every process of the agent."""
        return self.key & 0xFFFF_FFFF

    def send(self, descriptor: int) -> None:
        """Send one descriptor."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.ours.sendmsg([b"!"], rights, socket.MSG_DONTWAIT)

    def take_back(self) -> None:
        """Close what was sent and not received."""
        with suppress(BlockingIOError):
            while True:
                for descriptor in socket.recv_fds(self.theirs, 1, 1)[1]:
                    os.close(descriptor)


def hidden_key() -> int:
    """Return a key for a channel: its number is above what programs get by themselves, and below a big table."""
    number = min(_NUMBER, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1)
    return secrets.randbits(32) << 32 | number


def open_channel(key: int) -> Channel:
    """Return a new channel; nothing that the agent sends arrives anywhere."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.shutdown(socket.SHUT_RD)
    theirs.setblocking(False)
    return Channel(ours, theirs, key)


class Injector:
    """Changes calls of stopped threads. Belongs to the tracer's thread; deals with one thread at a time.

    Every method raises ProcessLookupError when the thread is gone.

    Args:
        arch: the agent's architecture.
        channel: of the run.
        until: waits for the next stop of one thread and returns its status, or raises ProcessLookupError.

    Raises:
        FeatureError: nobody knows how on this architecture.
    """

    def __init__(self, arch: Arch, channel: Channel, until: Callable[[int], int]) -> None:
        if arch.registers is None:
            raise FeatureError(f"calls cannot be changed by ptrace on {arch.name} yet")
        self._at, self._channel, self._until = arch.registers, channel, until
        self._saved, self._changed = bytearray(self._at.size), bytearray(self._at.size)
        self._saved_at, self._changed_at = libc.address_of(self._saved), libc.address_of(self._changed)
        self._recvmsg, self._mmap = syscalls.number("recvmsg", arch), syscalls.number("mmap", arch)
        self._blank = bytearray(_BLANK)
        self._blank_vector = structs.IOVEC.pack(libc.address_of(self._blank), len(_BLANK))
        self._page = bytearray(len(_BLANK))
        self._page_vector = structs.IOVEC.pack(libc.address_of(self._page), len(_BLANK))
        self._remote = structs.IOVEC.pack(PLACE, len(_BLANK))

    def skip(self, tid: int, result: int) -> None:
        """Have a thread return `result` from the call it stopped at, and run on."""
        libc.ptrace(flags.PTRACE_POKEUSER, tid, -1, self._at.number)
        libc.ptrace(flags.PTRACE_POKEUSER, tid, result, self._at.result)
        libc.ptrace(flags.PTRACE_CONT, tid)

    def restart(self, tid: int, number: int, code: int) -> None:
        """Have the kernel end a call as one that a signal has interrupted: with EINTR, or by making it anew.

        It looks for that only where there is a call, so the number is put back once the call has been skipped.
        """
        libc.ptrace(flags.PTRACE_POKEUSER, tid, -1, self._at.number)
        libc.ptrace(flags.PTRACE_POKEUSER, tid, -code, self._at.result)
        self._to_return(tid)
        libc.ptrace(flags.PTRACE_POKEUSER, tid, number, self._at.number)
        libc.ptrace(flags.PTRACE_CONT, tid)

    def run(self, tid: int, number: int, *arguments: int) -> int:
        """Run another call in place of the one a thread stopped at and return its result, negative for an error.

        The thread is then to `finish` or to begin `anew`.
        """
        libc.ptrace(flags.PTRACE_GETREGS, tid, self._saved_at)
        self._changed[:] = self._saved
        self._set(self._at.number, number)
        for place, argument in zip(self._at.arguments, arguments, strict=False):
            self._set(place, argument)
        libc.ptrace(flags.PTRACE_SETREGS, tid, self._changed_at)
        self._to_return(tid)
        libc.ptrace(flags.PTRACE_GETREGS, tid, self._changed_at)
        return int.from_bytes(self._changed[self._at.result : self._at.result + 8], "little", signed=True)

    def finish(self, tid: int, result: int) -> None:
        """Have a thread return `result` from its own call after another one was run."""
        self._put_back(tid, result)
        libc.ptrace(flags.PTRACE_CONT, tid)

    def anew(self, tid: int, number: int) -> None:
        """Have a thread make its own call, with this number, after another one was run: it stops there again."""
        self._put_back(tid, number, back=self._at.syscall_size)
        libc.ptrace(flags.PTRACE_CONT, tid)

    def prepare(self, tid: int, number: int) -> bool:
        """See that a thread at its call `number` has the page.

        Returns:
            Whether it still stands there; otherwise it has begun the call anew, and will stop there again.
        """
        try:
            if libc.process_vm_readv(tid, self._page_vector, self._remote, 1) >= len(_MARK):
                return True  # it has it, or something of its own lies there
        except OSError as error:
            if error.errno not in _UNMAPPED:
                return True
        how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags.MAP_FIXED_NOREPLACE
        mapped = self.run(tid, self._mmap, PLACE, _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, how, -1, 0)
        if mapped == PLACE:
            libc.process_vm_writev(tid, self._blank_vector, self._remote)
        self.anew(tid, number)
        return False

    def hand_over(self, tid: int, descriptor: int, close_on_exec: bool, release: Callable[[], None]) -> None:
        """Have a thread at its call return a new descriptor, a copy of one of ours, and `release` ours before it does.

        Raises:
            OSError: the thread's table is full (EMFILE), or it has no memory for it (ENOMEM); it is to `skip`.
        """
        self._require_page(tid)
        self._channel.send(descriptor)
        received = False
        try:
            how = socket.MSG_DONTWAIT | (flags.MSG_CMSG_CLOEXEC if close_on_exec else 0)
            result = self.run(tid, self._recvmsg, self._channel.key, _HEADER, how)
            received = result == 1
            number = self._number(tid) if received else result
            if number < 0:
                self._put_back(tid, number)
                raise OSError(-number, os.strerror(-number))
            release()
            self.finish(tid, number)
        finally:
            if not received:
                self._channel.take_back()

    def _require_page(self, tid: int) -> None:
        try:
            libc.process_vm_readv(tid, self._page_vector, self._remote, 1)
            if self._page.startswith(_MARK):
                libc.process_vm_writev(tid, self._blank_vector, self._remote)
                return
        except ProcessLookupError:
            raise
        except OSError:
            pass
        raise OSError(errno.ENOMEM, "there is no page for the message")

    def _number(self, tid: int) -> int:
        libc.process_vm_readv(tid, self._page_vector, self._remote, 1)
        message_flags, number = _RECEIVED.unpack_from(self._page)
        return -errno.EMFILE if message_flags & _TRUNCATED or number < 0 else int(number)

    def _to_return(self, tid: int) -> None:
        libc.ptrace(flags.PTRACE_SYSCALL, tid)
        if classify(self._until(tid)).what is not What.RETURNED:
            raise ProcessLookupError(errno.ESRCH, "the thread is gone")

    def _put_back(self, tid: int, result: int, back: int = 0) -> None:
        self._changed[:] = self._saved
        self._set(self._at.result, result)
        self._set(self._at.number, -1)
        if back:
            place = self._at.instruction
            self._set(place, int.from_bytes(self._saved[place : place + 8], "little") - back)
        libc.ptrace(flags.PTRACE_SETREGS, tid, self._changed_at)

    def _set(self, place: int, value: int) -> None:
        self._changed[place : place + 8] = (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
