"""Running real programs under the real supervisor: as root and as an ordinary user.

The ordinary user runs an installation of its own, made by `pip install .` into a plain virtual environment, so the
tests also show that this alone gives a working `helm-sentry run`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NOBODY = 65534
TIER = ("--tier", os.environ["HELM_SENTRY_TIER"]) if "HELM_SENTRY_TIER" in os.environ else ()
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Result:
    """What a supervised run left behind."""

    status: int
    stdout: str
    stderr: str
    directory: Path | None

    @property
    def records(self) -> list[dict[str, Any]]:
        assert self.directory is not None, self.stderr
        return [json.loads(line) for line in (self.directory / "audit.jsonl").read_text().splitlines()]

    def denials(self, kind: str = "") -> list[dict[str, Any]]:
        return [r for r in self.records if r.get("verdict") == "DENY" and (not kind or kind in r["ops"])]


@dataclass(frozen=True)
class Sandbox:
    """A workspace, a state directory and a way to run helm-sentry there as one user."""

    root: Path
    command: tuple[str, ...]
    uid: int
    tier: tuple[str, ...] = TIER

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    def policy(self, text: str, name: str = "test") -> Path:
        path = self.root / f"{name}.yaml"
        path.write_text(f"schema: helm-sentry/policy/v1\nname: {name}\n{text}")
        return path

    def argv(self, command: Sequence[str], policy: Path | str = "default", options: Sequence[str] = ()) -> list[str]:
        return [*self.command, "run", *self.tier, "--policy", str(policy), *options, "--", *command]

    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.root / "home"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "LANG": "C.UTF-8",
        }

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        identity: dict[str, Any] = {}
        if os.getuid() == 0 and self.uid:
            identity = {"user": self.uid, "group": self.uid, "extra_groups": []}
        options = {"env": self.environment()} | identity | options
        return subprocess.Popen(argv, cwd=self.workspace, text=True, **options)

    def run(
        self,
        command: Sequence[str],
        policy: Path | str = "default",
        *,
        options: Sequence[str] = (),
        stdin: str = "",
        timeout: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        before = set(self.runs())
        process = self.popen(
            self.argv(command, policy, options),
            env=self.environment() | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"timed out\n{out[-2000:]}\n{err[-4000:]}") from None
        new = sorted(set(self.runs()) - before)
        return Result(process.returncode, out, err, new[-1] if new else None)

    def native(self, command: Sequence[str], *, stdin: str = "", timeout: float = 120) -> Result:
        """Run the same command without the supervisor: the control."""
        process = self.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=timeout)
        return Result(process.returncode, out, err, None)

    def runs(self) -> list[Path]:
        directory = self.root / "state" / "helm-sentry" / "runs"
        return list(directory.iterdir()) if directory.exists() else []

    def verify(self, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [*self.command, "verify", str(directory), *options]
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # its user's keys are trusted
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


AFTERWARDS: list[Callable[[], object]] = []
"""What lets go of things when the test that made them is over."""


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    receivers = bool(AFTERWARDS)
    while AFTERWARDS:
        AFTERWARDS.pop()()
    for number in set(os.listdir("/proc/self/fd")) - before if receivers else ():
        with contextlib.suppress(OSError):  # what a receiver looks names up in: nobody serves with it any more
            if os.readlink(f"/proc/self/fd/{number}").startswith("/proc"):
                os.close(int(number))


@pytest.fixture(scope="session")
def installation() -> Iterator[Path]:
    """`pip install .` into a plain environment that sees neither BCC nor this checkout."""
    directory = Path(tempfile.mkdtemp(prefix="sentry-install-"))
    directory.chmod(0o755)
    source = directory / "source"
    shutil.copytree(
        CHECKOUT, source, ignore=shutil.ignore_patterns(".git", ".venv*", ".mypy_cache", ".hypothesis", "__pycache__")
    )
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(directory / "venv")], check=True)
    subprocess.run([str(directory / "venv/bin/pip"), "install", "-q", str(source)], check=True)
    yield directory / "venv/bin/helm-sentry"
    shutil.rmtree(directory)


def _users() -> list[str]:
    return ["root", "user"] if os.getuid() == 0 else ["user"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test as root and as an ordinary user; those marked `every_tier` once more, traced."""
    chosen = any("sandbox" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "sandbox" in metafunc.fixturenames and not chosen:
        ways = _users()
        if metafunc.definition.get_closest_marker("every_tier") and not TIER:
            ways = [*ways, f"{ways[0]}-ptrace"]
        metafunc.parametrize("sandbox", ways, indirect=True)


def make_sandbox(command: tuple[str, ...], uid: int, tier: tuple[str, ...] = TIER) -> Sandbox:
    root = Path(tempfile.mkdtemp(prefix="sentry-test-"))
    root.chmod(0o755)
    for name in ("workspace", "home", "state"):
        (root / name).mkdir()
        os.chown(root / name, uid, uid)
    return Sandbox(root, command, uid, tier)


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A fresh sandbox, once as root (where the tests run as root) and once as an ordinary user."""
    who, _, tier = request.param.partition("-")
    root = who == "root"
    program = Path(sysconfig.get_path("scripts")) / "helm-sentry" if root else request.getfixturevalue("installation")
    uid = 0 if root else NOBODY if os.getuid() == 0 else os.getuid()
    made = make_sandbox((str(program),), uid, ("--tier", tier) if tier else TIER)
    yield made
    shutil.rmtree(made.root, ignore_errors=True)


@pytest.fixture(scope="session")
def victims() -> Iterator[Path]:
    """The tiny C programs of `victims/`, compiled."""
    directory = Path(tempfile.mkdtemp(prefix="sentry-victims-"))
    directory.chmod(0o755)
    for source in sorted((Path(__file__).parent / "victims").glob("*.c")):
        subprocess.run(
            ["cc", "-O1", "-Wall", "-pthread", "-D_GNU_SOURCE", "-o", str(directory / source.stem), str(source)],
            check=True,
        )
    yield directory
    shutil.rmtree(directory)


PYTHON = SYSTEM_PYTHON if os.path.exists(SYSTEM_PYTHON) else sys.executable


@pytest.fixture(scope="session")
def daemon_installation(installation: Path) -> Path:
    """The same with what a daemon needs."""
    source = installation.parents[2] / "source"
    subprocess.run([str(installation.parent / "pip"), "install", "-q", f"{source}[daemon]"], check=True)
    return installation


@pytest.fixture
def daemon(sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator["Any"]:
    """A daemon that serves the sandbox's user."""
    from tests.kernel.daemons import Daemon

    if sandbox.uid:
        request.getfixturevalue("daemon_installation")
    made = Daemon(sandbox)
    yield made
    made.close()
