"""The standby: a process that forks, and does nothing else, and its spare, which waits for somebody to ask.

The spare looks who asks, and becomes the run; then another one is forked. Both have one thread and hold no key, no log
and nothing of any run, so what is forked from them, the agent's process among it, has nothing of them either.
"""

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from helm_sentry import state
from helm_sentry.abi import flags, libc
from helm_sentry.abi.structs import SIGNALFD_SIGINFO
from helm_sentry.control.badge import has_badge
from helm_sentry.control.gate import listen, private_directory
from helm_sentry.control.peer import Peer, peer_of
from helm_sentry.errors import SentryError
from helm_sentry.intercept.process_tree import parent_of
from helm_sentry.launch.child import close_all_but
from helm_sentry.standby.client import GO
from helm_sentry.standby.likeness import difference, likeness, of_interpreter, umask_and_ignored
from helm_sentry.standby.program import Loaded, writable
from helm_sentry.standby.words import LONGEST_HEAD, MOST_BYTES, Words, own_words, unpacked

_PASSED = 4  # descriptors: standard input, output, error, and the directory
_PATIENCE = 2.0  # seconds for a request to arrive, as the client has
_QUIET = 0.02  # seconds until a new spare makes itself ready: the run before it is just starting, and needs processors
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_CHANGED = 3  # exit status of a fork that found the program changed

Run = Callable[[list[str], int], NoReturn]
Ahead = Callable[[], Sequence[int]]


class Misfit(Exception):
    """The start must be an ordinary one; the text says why."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a fork needs to become the run that was asked for."""

    words: Words
    umask: int
    ignored: frozenset[int]


class Standby:
    """Serves until it is told to end, or the program has changed.

    Args:
        run: does what a command line says, for the caller at the other end of a connection.
        ahead: does what can be done before it is known for whom; returns descriptors, which `run` needs.

    Raises:
        SentryError: there is one already, or the socket cannot be made.
    """

    def __init__(self, run: Run, ahead: Ahead) -> None:
        self._run, self._ahead = run, ahead
        path = state.standby_socket()
        try:
            self._directory = private_directory(os.path.dirname(path))
            lock = os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._listener = listen(self._directory, os.path.basename(path))
        except BlockingIOError:
            raise SentryError(f"a standby serves `{state.state_directory()}` already") from None
        except OSError as error:
            raise SentryError(f"`{os.path.dirname(path)}` cannot be used: {error.strerror}") from error
        _leave_the_session()
        libc.prctl(flags.PR_SET_DUMPABLE, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS | {signal.SIGCHLD})
        self._signals = libc.signalfd({int(number) for number in _ENDS | {signal.SIGCHLD}})
        self._taken, self._take = os.pipe()
        self._program = Loaded()
        if len(os.listdir("/proc/self/task")) != 1:
            raise SentryError("the standby has more than one thread, and a fork would have one")
        gc.collect()
        gc.freeze()  # the collector would write to every page, and each fork pay for a copy of it

    def serve(self) -> None:
        """Keep a spare. Runs that go on are not ended with this process.

        Raises:
            SentryError: the spare came to an end by itself.
        """
        try:
            self._keep_spare()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.basename(state.standby_socket()), dir_fd=self._directory)

    def _keep_spare(self) -> None:
        spare = self._spare()
        say(f"ready for {state.state_directory()}")
        poller = select.poll()
        poller.register(self._taken, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._taken in ready:
                os.read(self._taken, 1)
                spare = self._spare()
                continue
            number, _, _ = SIGNALFD_SIGINFO.unpack(os.read(self._signals, SIGNALFD_SIGINFO.size))
            ended = dict(_ended())
            if number in _ENDS:
                return
            if _CHANGED in ended.values():
                say("the program has changed since it was loaded; start the standby again")
                return
            if spare in ended:
                raise SentryError("the standby's spare was killed")

    def _spare(self) -> int:
        """Fork a process that becomes the next run that is asked for."""
        standby = os.getpid()
        if spare := os.fork():
            return spare
        try:
            libc.prctl(flags.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == standby:
                self._wait()
        finally:
            os._exit(1)

    def _wait(self) -> None:
        kept: Sequence[int] = ()
        if not select.select([self._listener], [], [], _QUIET)[0]:
            _own_memory()
            kept = self._ahead()
        connection, _ = self._listener.accept()
        os.write(self._take, b"!")
        libc.prctl(flags.PR_SET_PDEATHSIG, 0)
        self._become(connection, kept)

    def _become(self, connection: socket.socket, kept: Sequence[int]) -> None:
        """Become the run that is asked for, if this process can. Does not return."""
        libc.prctl(flags.PR_SET_DUMPABLE, 1)  # as an ordinary start; without it an ordinary user may not read on itself
        connection.settimeout(_PATIENCE)
        peer = peer_of(connection)
        try:
            _, descriptors, _, _ = socket.recv_fds(connection, 1, _PASSED, socket.MSG_CMSG_CLOEXEC)
            asked = self._fitting(connection, peer, _said(connection), len(descriptors))
            connection.sendall(GO)
            if connection.recv(1) != GO:
                raise Misfit("it did not wait")
        except (Misfit, ValueError, OSError) as error:
            say(f"an ordinary start for process {peer.pid}: {error}")
            os._exit(_CHANGED if isinstance(error, _Changed) else 0)
        connection.settimeout(None)
        _put_on(asked, connection.fileno(), descriptors, kept)
        self._run(list(asked.words.arguments), connection.fileno())

    def _fitting(self, connection: socket.socket, peer: Peer, words: Words, descriptors: int) -> _Asked:
        """Return what is asked for.

        Raises:
            Misfit: this process is not what an ordinary start would be.
            OSError: the peer is gone, or may not be looked at.
        """
        handle = _handle(connection, peer)
        if descriptors != _PASSED:
            raise Misfit("a run comes with standard input, output, error and a directory")
        if who := _refusal(peer):
            raise Misfit(who)
        if words.program != own_words().program:
            raise Misfit("another program")
        if what := difference(likeness(os.getpid()), likeness(peer.pid)):
            raise Misfit(f"it differs in {what}")
        if what := difference(of_interpreter(os.environ), of_interpreter(words.environment)):
            raise Misfit(f"it differs in {what}")
        umask, ignored = umask_and_ignored(peer.pid)
        if select.select([handle], [], [], 0)[0]:  # what was looked at may have been another process's
            raise Misfit("it has ended")
        if path := self._program.change():
            raise _Changed(f"`{path}` has changed")
        return _Asked(words, umask, ignored)


class _Changed(Misfit):
    pass


def say(text: str) -> None:
    """Print a line for whoever reads the standby's own log."""
    print(f"helm-sentry standby: {text}", file=sys.stderr, flush=True)


def _leave_the_session() -> None:
    """Have no terminal, as the runs that are forked have none."""
    if os.getsid(0) == os.getpid() and likeness(os.getpid())["terminal"] == "0":
        return  # a service manager's
    if os.getpgrp() == os.getpid() and os.fork():  # a shell's job, whose leader cannot leave
        os._exit(0)
    os.setsid()


def _said(connection: socket.socket) -> Words:
    head = b""
    while not head.endswith(b"\n"):
        head += (part := connection.recv(1))
        if not part or len(head) > LONGEST_HEAD:
            raise ValueError("it said too little, or too much")
    size = int(head.split()[0])
    if not 0 < size <= MOST_BYTES:
        raise ValueError("it said too much")
    body = bytearray()
    while len(body) < size:
        body += (part := connection.recv(size - len(body)))
        if not part:
            raise ValueError("it said too little")
    return unpacked(head, bytes(body))


def _ended() -> Iterator[tuple[int, int]]:
    """Yield the children that have ended, with their exit statuses."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


def _own_memory() -> None:
    """Copy now what is shared with the standby: page by page, as it is first written to, is 10 ms of a run."""
    for begin, end in writable():
        with contextlib.suppress(OSError):  # before Linux 5.14
            libc.populate(begin, end - begin)


def _handle(connection: socket.socket, peer: Peer) -> int:
    """Return a descriptor of the process that connected; before Linux 6.5 of the one that has its id now."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, flags.SO_PEERPIDFD)
    except OSError:
        return os.pidfd_open(peer.pid)


def _refusal(peer: Peer) -> str:
    """Return why a peer may not ask: only this very user may, and nobody who is an agent or connects for one."""
    if peer.uid != os.geteuid() or peer.pid <= 0:
        return "another user"
    pid = peer.pid
    while pid > 1:
        if has_badge(pid):
            return "an agent, or its supervisor"
        pid = parent_of(pid)
    return ""


def _put_on(asked: _Asked, connection: int, descriptors: list[int], kept: Sequence[int]) -> None:
    """Take over what the caller handed over, and let go of all that is the standby's."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.fchdir(descriptors[3])
    close_all_but(connection, *kept)
    os.setsid()
    os.umask(asked.umask)
    os.environ.clear()
    os.environ.update(asked.words.environment)
    time.tzset()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        known = signal.getsignal(number)
        if number in asked.ignored and known is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
        elif number not in asked.ignored and known is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
