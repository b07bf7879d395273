"""A daemon for tests, and agents it hosts."""

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from helm_sentry.audit.follow import records
from helm_sentry.rpc.sentry_pb2_grpc import SentryStub
from tests.kernel.conftest import PYTHON, Sandbox

PATIENCE = 60.0
ONCE = pytest.mark.parametrize("sandbox", ["user" if os.getuid() else "root"], indirect=True)
"""For tests whose subject is the same whoever the agent's user is."""
# Reads a file for each line of standard input and says what came of it.
READER = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    try: print(open(line.strip()).read(), flush=True)
    except OSError as error: print(error.strerror, flush=True)
"""


def until(true: Any, what: str = "") -> Any:
    """Wait until a function returns something true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, what or true
        select.select([], [], [], 0.01)
    return found


class Daemon:
    """`helm-sentry daemon` as one user; root talks to it."""

    def __init__(self, sandbox: Sandbox, *options: str) -> None:
        self.sandbox, self.options = sandbox, options
        self.log = sandbox.root / "daemon.log"
        self.agents: list[Agent] = []
        self.start()

    def start(self) -> None:
        with open(self.log, "a") as log:
            self.process = self.sandbox.popen([*self.sandbox.command, "daemon", *self.options], stderr=log)
        self._began = self.log.read_text().count("serving")
        until(self._serves, "the daemon serves")
        self.channel = grpc.insecure_channel(f"unix:{self.directory}/grpc")
        self.stub = SentryStub(self.channel)

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.log.read_text().count("serving") > self._began

    @property
    def state(self) -> Path:
        return self.sandbox.root / "state" / "helm-sentry"

    @property
    def directory(self) -> Path:
        return self.state / "daemon"

    def agent(self, policy: Path | str = "default", code: str = READER, **options: Any) -> "Agent":
        self.agents.append(Agent(self.sandbox, policy, code, **options))
        return self.agents[-1]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.sandbox.popen(
            [*self.sandbox.command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def shown(self, run: str) -> dict[str, Any]:
        return json.loads(self.command("inspect", run).stdout)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.channel.close()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        try:
            for agent in self.agents:
                agent.close()
        finally:
            if self.process.poll() is None:
                self.stop()


class Agent:
    """A Python program under `helm-sentry run`."""

    def __init__(
        self, sandbox: Sandbox, policy: Path | str, code: str, options: tuple[str, ...] = (), **popen: Any
    ) -> None:
        self.sandbox, before = sandbox, set(sandbox.runs())
        self.process = sandbox.popen(
            sandbox.argv([PYTHON, "-c", code], policy, options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **popen,
        )
        self.first_line = self.process.stdout.readline().strip()
        assert self.first_line, self.process.communicate()
        self.directory = max(set(sandbox.runs()) - before)

    @property
    def run(self) -> str:
        return self.directory.name

    def read(self, path: Path) -> str:
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def records(self, kind: str) -> list[dict[str, Any]]:
        every = records(str(self.directory), from_start=True, goes_on=lambda: False)  # of all segments
        return [fields for _, fields in every if fields["type"] == kind]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
