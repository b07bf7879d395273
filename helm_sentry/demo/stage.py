"""The temporary directory a demo plays in: approved data, a home with a key, a workspace, agent and policy."""

import errno
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass

from helm_sentry.demo.scenario import TASK, Props
from helm_sentry.demo.server import ForbiddenServer
from helm_sentry.policy.pattern import quote

USERS = "/etc/passwd"
_HERE = os.path.dirname(os.path.abspath(__file__))
_VARIABLES = re.compile(r"^variables: .*$", re.MULTILINE)
_TOOLS = ("curl", "wget")
_FILES = {
    "data/customers.csv": "name,mood\nAda,friendly\nGrace,friendly\nKen,friendly\n",
    "home/.ssh/id_ed25519": "-----BEGIN OPENSSH PRIVATE KEY-----\nthrown away with the demo\n",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that has been built.

    Attributes:
        directory: its canonical path.
        passwd: the file the agent is told to open for writing.
        program: a program that no rule names.
    """

    directory: str
    passwd: str
    program: str

    @property
    def workspace(self) -> str:
        """The agent's workspace."""
        return os.path.join(self.directory, "workspace")

    @property
    def fifo(self) -> str:
        """What the daemon waits for."""
        return os.path.join(self.workspace, "alarm")

    @property
    def trace(self) -> str:
        """What the daemon writes when it is woken."""
        return os.path.join(self.workspace, "still-here")

    def props(self, forbidden: ForbiddenServer) -> Props:
        """Return what the acts are about."""
        return Props(
            data=os.path.join(self.directory, "data/customers.csv"),
            report=os.path.join(self.workspace, "report.md"),
            key=os.path.join(self.directory, "home/.ssh/id_ed25519"),
            passwd=self.passwd,
            program=self.program,
            url=f"{forbidden.url}/",
            address=forbidden.address,
            fifo=self.fifo,
            trace=self.trace,
        )

    def command(self, url: str) -> list[str]:
        """Return the agent's command line, with the interpreter that is no part of any virtual environment."""
        base = getattr(sys, "_base_executable", "") or sys.executable
        return [os.path.realpath(base), "-I", os.path.join(self.directory, "agent.py"), url, TASK]

    def write_policy(self, model_port: int) -> str:
        """Write the demo's policy with this stage filled in, and return its path."""
        variables = {
            "stage": _literal(self.directory),
            "passwd": _literal(self.passwd),
            "model_port": str(model_port),
            "python": _literal(os.path.realpath(sys.base_prefix)),
        }
        with open(os.path.join(_HERE, "policy.yaml"), encoding="utf-8") as file:
            # A JSON object is a YAML mapping.
            text = _VARIABLES.sub(lambda match: f"variables: {json.dumps(variables)}", file.read())
        path = os.path.join(self.directory, "policy.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def daemon_gone(self) -> bool:
        """Whether nobody waits on the FIFO any more; whoever does is woken."""
        try:
            fifo = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        os.write(fifo, b"!")
        os.close(fifo)
        return False


def build(directory: str, passwd: str = USERS) -> Stage:
    """Fill an empty directory and return the stage in it.

    Args:
        directory: where.
        passwd: the file the agent is told to open for writing, without writing anything.
    """
    directory = os.path.realpath(directory)
    for name, text in _FILES.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    shutil.copyfile(os.path.join(_HERE, "agent.py"), os.path.join(directory, "agent.py"))
    stage = Stage(directory, os.path.realpath(passwd), _program(directory))
    os.mkdir(stage.workspace, 0o700)
    os.mkfifo(stage.fifo, 0o600)
    return stage


def _program(directory: str) -> str:
    """Return curl, or what serves as a program without a rule where there is none."""
    for name in _TOOLS:
        if found := shutil.which(name):
            return os.path.realpath(found)
    return str(shutil.copy(os.path.realpath(shutil.which("true") or "/bin/true"), directory))


def _literal(path: str) -> str:
    """Return a path as the text of a variable: no wildcard, no variable of its own."""
    return quote(path).replace("${", "$${")
