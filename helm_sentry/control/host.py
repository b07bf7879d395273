"""Starting runs for others: one supervisor process a run, with the caller's own input, output and directory.

A caller connects to the host's socket, passes four descriptors (standard input, output and error, working directory)
and sends a line of JSON. The host answers with the run's id and hands the connection over to the new supervisor.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.endpoint import read_request
from helm_sentry.control.gate import address
from helm_sentry.control.peer import Peer
from helm_sentry.errors import SentryError, UsageError

PASSED = 4
"""Descriptors that come with a request."""

_PATIENCE = 10.0  # seconds for a request to arrive
_LOOK_EVERY = 0.02  # seconds between looks for the socket of a run that begins
_MOST_SAID = 4096  # characters of why a run did not begin
_LONGEST = 108  # bytes of a socket's address, its last one zero


@dataclass(frozen=True, slots=True)
class Start:
    """What to start.

    Attributes:
        run: id of the run.
        options: `prepare.Options` as plain data.
        hosted: `prepare.Hosted` as plain data, the connection left out.
        umask: the caller's file mode creation mask.
        attached: the run ends with its caller, to whom the connection is handed.
    """

    run: str
    options: Fields
    hosted: Fields
    umask: int = 0o022
    attached: bool = True


@dataclass(slots=True)
class Host:
    """Starts runs, and knows those it has started.

    Attributes:
        order: makes a `Start` of a request; raises SentryError with a sentence for the caller.
        ended: called with the id of a run that is over, on any thread.
        others: what else can be asked for, by the request's `do`.
        starting: held from the order to the start.
    """

    order: Callable[[Peer, Fields], Start]
    ended: Callable[[str], None] = lambda run: None
    others: Mapping[str, Callable[[Fields], Fields]] = field(default_factory=dict)
    starting: threading.Lock = field(default_factory=threading.Lock)
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runs(self) -> dict[str, int]:
        """The process of each run that goes on, by its id."""
        with self._lock:
            return {run: process.pid for run, process in self._processes.items()}

    def serve(self, connection: socket.socket, peer: Peer) -> None:
        """Start a run for who connected, or do what else there is to do."""
        connection.settimeout(_PATIENCE)
        with _received(connection) as descriptors:
            try:
                request = read_request(connection)
                if other := self.others.get(str(request.get("do"))):
                    _send(connection, other(request))
                    return
                if len(descriptors) != PASSED:
                    raise UsageError("a run comes with standard input, output, error and a directory")
                with self.starting:
                    start = self.order(peer, request)
                    if start.attached:
                        _send(connection, {"run": start.run})
                    connection.settimeout(None)  # it blocks from here on, also for the supervisor, which shares it
                    self._spawn(start, descriptors, connection)
                if not start.attached:
                    self._await_service(start.run)
                    _send(connection, {"run": start.run})
            except SentryError as error:
                _send(connection, {"error": str(error), "status": error.exit_status})

    def kill(self, run: str) -> None:
        """End the supervisor of a run, and with it the agent."""
        with self._lock:
            if process := self._processes.get(run):
                process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for all runs to end; False when some have not."""
        for process in list(self._processes.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        return not self.runs

    def _spawn(self, start: Start, descriptors: list[int], connection: socket.socket) -> None:
        handed = connection.fileno() if start.attached else -1
        order = os.memfd_create("order", os.MFD_CLOEXEC)
        output = -1
        try:
            output = descriptors[1] if start.attached else output_of(start.run)
            text = json.dumps({"options": start.options, "hosted": start.hosted | {"connection": handed}})
            with open(os.dup(order), "wb") as file:
                file.write(text.encode())
            process = subprocess.Popen(
                # -P: nothing in the working directory, which is the agent's, may be loaded.
                [sys.executable, "-P", "-m", "helm_sentry.hosted", str(order)],
                stdin=descriptors[0],
                stdout=output,
                stderr=descriptors[2] if start.attached else output,
                cwd=f"/proc/self/fd/{descriptors[3]}",
                pass_fds=[order] + ([handed] if start.attached else []),
                umask=start.umask,
                start_new_session=True,
            )
        except OSError as error:
            raise SentryError(f"the run cannot be started: {error.strerror}") from error
        finally:
            os.close(order)
            if not start.attached and output >= 0:
                os.close(output)
        with self._lock:
            self._processes[start.run] = process
        threading.Thread(target=self._await, args=(start.run, process), name=start.run, daemon=True).start()

    def _await_service(self, run: str) -> None:
        """Wait until a run can be asked about itself, or is over, so that whoever left it here can follow it.

        Raises:
            SentryError: it did not begin; with what its supervisor said.
        """
        path = os.path.join(state.control_directory(), run)
        while run in self.runs and not os.path.exists(path):
            time.sleep(_LOOK_EVERY)
        if run not in self.runs and not os.path.exists(os.path.join(state.runs_directory(), run)):
            raise SentryError(_last_words(run))

    def _await(self, run: str, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        with self._lock:
            del self._processes[run]
        self.ended(run)


def _send(connection: socket.socket, answer: Fields) -> None:
    connection.sendall(json.dumps(answer).encode() + b"\n")


def hand_over(path: str, request: Fields, descriptors: list[int]) -> tuple[socket.socket, Fields] | None:
    """Ask a host for something and return the connection and the answer; None where there is no host.

    Args:
        path: the host's socket.
        request: what to do.
        descriptors: standard input, output, error, and the working directory, for a run.

    Raises:
        SentryError: the host's own refusal.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _connect(connection, path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise SentryError(f"`{path}` cannot be reached: {error.strerror}; `--alone` runs without it") from error
    try:
        socket.send_fds(connection, [b" "], descriptors)
        connection.sendall(json.dumps(request).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            line += (part := connection.recv(1))  # what comes after it is for somebody else
            if not part:
                raise SentryError("the host ended the conversation; it serves its own user and root, or its own agent")
    except OSError as error:
        raise SentryError(f"the host of runs does not answer: {error.strerror}; `--alone` runs without it") from error
    answer = json.loads(line)
    if "error" in answer:
        refused = SentryError(answer["error"])
        refused.exit_status = int(answer["status"])
        raise refused
    return connection, answer


def _connect(connection: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) < _LONGEST:
        connection.connect(path)
        return
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(address(directory, os.path.basename(path)))
    finally:
        os.close(directory)


def output_of(run: str) -> int:
    """Return a new file for what an agent without a caller prints.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(state.output_directory(), mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(os.path.join(state.output_directory(), run), flags, 0o600)


def _last_words(run: str) -> str:
    try:
        with open(os.path.join(state.output_directory(), run), encoding="utf-8", errors="replace") as file:
            said = file.read(_MOST_SAID).strip()
    except OSError:
        said = ""
    return said.removeprefix("helm-sentry: ") or f"run `{run}` did not begin"


@contextlib.contextmanager
def _received(connection: socket.socket) -> Iterator[list[int]]:
    """Take the descriptors that come first; they are closed in the end."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, PASSED, socket.MSG_CMSG_CLOEXEC)
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
