"""The stage on which conformance vectors are met, and one supervised or free run on it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from helm_sentry import state
from helm_sentry.abi.arch import native
from helm_sentry.abi.syscalls import number
from helm_sentry.errors import SentryError
from helm_sentry.policy.pattern import quote
from helm_sentry.receipt.keyring import KEY_FD

_PATIENCE = 60.0  # seconds
_MAIN = "from helm_sentry.cli.main import main; main(prog_name='helm-sentry')"
# The limit is the supervisor's: what it has to write no longer fits.
_CRAMPED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); {_MAIN}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one run came to.

    Attributes:
        command: what was run.
        status: its exit status.
        lines: what it printed.
        directory: the run directory, empty for a free run or one that left none.
    """

    command: tuple[str, ...]
    status: int
    lines: tuple[str, ...]
    directory: str = ""


class Stage:
    """A workspace, a secret, a home with a key, and listeners that a refused connection must not reach.

    Args:
        directory: an empty directory of the caller's, canonical.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.workspace = os.path.join(directory, "workspace")
        for name in ("workspace", "home"):
            os.mkdir(os.path.join(directory, name), 0o700)
        for name in ("secret", "home/api_key"):
            with open(os.path.join(directory, name), "x", encoding="ascii") as file:
                file.write("not for agents\n")
        self._closed, self._granted = _listener("127.0.0.1"), _listener("127.0.0.1")
        self._tunnel = _listener(os.path.join(directory, "mcp.sock"))

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for listener in (self._closed, self._granted, self._tunnel):
            listener.close()

    @property
    def port(self) -> int:
        """The port that nobody grants."""
        return int(self._closed.getsockname()[1])

    def visits(self) -> int:
        """Return how many connections have reached what nobody grants since the last time this was asked."""
        _drain(self._granted)
        return _drain(self._closed) + _drain(self._tunnel)

    def policy(self, rules: str = "") -> str:
        """Write a policy for this stage and return its path."""
        path = os.path.join(self.directory, "policy.yaml")
        variables = {
            "stage": quote(self.directory).replace("${", "$${"),
            "python": quote(os.path.realpath(sys.base_prefix)).replace("${", "$${"),
            "granted": str(self._granted.getsockname()[1]),
        }
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                "schema: helm-sentry/policy/v1\nname: conform\nextends: [default]\n"
                f"variables: {json.dumps(variables)}\n"  # a JSON object is a YAML mapping
                "allow:\n  - {id: interpreter, file: {do: [read, list], paths: ['${python}/**']}}\n" + rules
            )
        return path

    def free(self, script: str) -> Trial:
        """Run a script without a supervisor: the control."""
        return self._run(self._agent(script), ())

    def supervised(self, script: str, policy: str, options: Sequence[str] = (), *, cramped: bool = False) -> Trial:
        """Run a script under a policy.

        Args:
            script: the agent.
            policy: path of the policy.
            options: further options of `helm-sentry run`.
            cramped: let the supervisor write no file beyond 64 KiB.
        """
        # -P: nothing is imported from the directory this is called in.
        sentry = (sys.executable, "-P", "-c", _CRAMPED if cramped else _MAIN)
        words = ("run", "--quiet", "--policy", policy, "--workspace", self.workspace, *options, "--")
        return self._run((*sentry, *words, *self._agent(script)), ("helm-sentry", *words, *self._agent(script)))

    def _agent(self, script: str) -> tuple[str, ...]:
        path = os.path.join(self.workspace, "agent.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(script)
        base = getattr(sys, "_base_executable", "") or sys.executable
        ring = str(number("io_uring_setup", native()))
        granted = str(self._granted.getsockname()[1])
        return (os.path.realpath(base), "-I", path, self.directory, str(self.port), granted, ring)

    def _run(self, command: tuple[str, ...], shown: tuple[str, ...]) -> Trial:
        before = _runs()
        try:
            done = subprocess.run(
                command,
                cwd=self.workspace,
                env=key_environment() | {"ORG_API_KEY": "not for agents"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SentryError(f"a conformance vector took longer than {_PATIENCE:.0f} s") from error
        made = [path for path in sorted(_runs() - before) if self._is_ours(path)]
        return Trial(shown or command, done.returncode, tuple(done.stdout.splitlines()), made[-1] if made else "")

    def _is_ours(self, directory: str) -> bool:
        """Whether a run is of this stage: others may begin meanwhile."""
        try:
            with open(os.path.join(directory, "run.json"), encoding="utf-8") as file:
                return self.directory in json.load(file)["argv"]
        except (OSError, ValueError, KeyError):
            return False


def key_environment() -> dict[str, str]:
    """Return the environment of a run without a key on a descriptor, which can be read only once."""
    return {name: value for name, value in os.environ.items() if name != KEY_FD}


def _runs() -> set[str]:
    runs = os.path.join(state.state_directory(), "runs")
    return {os.path.join(runs, name) for name in os.listdir(runs)} if os.path.isdir(runs) else set()


def _listener(address: str) -> socket.socket:
    """Return a listener that nobody accepts on: the kernel completes connections, and they are counted later."""
    internet = not address.startswith("/")
    made = socket.socket(socket.AF_INET if internet else socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind((address, 0) if internet else address)
    made.listen(16)
    made.setblocking(False)
    return made


def _drain(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
