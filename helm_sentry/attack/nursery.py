"""Processes that are not supervised: the controls, and who stands around. They are forked, not started one by one."""

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO

from helm_sentry.attack.arena import interpreter

FLAGS = ("-E", "-s", "-S", "-B")
"""How Python is started for attack programs: nothing of the user's settings, no site packages."""

_ANSWER = 4096


class Child:
    """A process with pipes, as `subprocess.Popen` has them.

    Attributes:
        pid: its id.
        stdin: to write to it.
        stdout: to read what it says.
        inherited: number of the descriptor that was passed to it.
    """

    def __init__(self, pid: int, stdin: IO[str], stdout: IO[str], inherited: int) -> None:
        self.pid, self.stdin, self.stdout, self.inherited = pid, stdin, stdout, inherited
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = -1

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; how is not known.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        if self._handle >= 0 and not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("child", timeout or 0)
        return 0

    def kill(self) -> None:
        """Kill it."""
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        for stream in (self.stdin, self.stdout):
            with suppress(OSError):
                stream.close()
        if self._handle >= 0:
            os.close(self._handle)


class Nursery:
    """Forks processes that run attack programs; a context manager.

    Args:
        programs: directory of the programs.
    """

    def __init__(self, programs: str) -> None:
        self._programs = programs
        self._door, door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [interpreter(), *FLAGS, f"{programs}/nursery.py"]
        with door:
            self._process = subprocess.Popen(command, stdin=door.fileno())

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._door.close()
        self._process.wait()

    def start(
        self,
        program: str,
        arguments: Sequence[str] = (),
        *,
        directory: str = "/",
        environment: Mapping[str, str] | None = None,
        errors: int = 2,
        inherited: Sequence[int] = (),
    ) -> Child:
        """Start one.

        Args:
            program: name of a program in the directory.
            arguments: what it is told.
            directory: where it starts.
            environment: its variables; this process's by default.
            errors: descriptor for its standard error.
            inherited: at most one more descriptor that it has, under another number.
        """
        hear, say = os.pipe(), os.pipe()
        task = {
            "program": f"{self._programs}/{program}",
            "arguments": list(arguments),
            "directory": directory,
            "environment": dict(os.environ if environment is None else environment),
        }
        socket.send_fds(self._door, [json.dumps(task).encode()], [hear[0], say[1], errors, *inherited])
        os.close(hear[0])
        os.close(say[1])
        answer = json.loads(self._door.recv(_ANSWER))
        return Child(answer["pid"], open(hear[1], "w"), open(say[0]), (*answer["inherited"], 0)[0])
