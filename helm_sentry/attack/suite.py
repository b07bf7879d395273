"""Playing the attacks: each without a supervisor as its control, then under one with the user's policy."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO, Any

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import native
from helm_sentry.attack import arena as arenas
from helm_sentry.attack.arena import Arena
from helm_sentry.attack.catalogue import Attack, programs_directory
from helm_sentry.attack.nursery import FLAGS, Child, Nursery
from helm_sentry.attack.scorecard import Outcome, Performance, judge
from helm_sentry.attack.surroundings import Surroundings
from helm_sentry.audit.segments import Follower
from helm_sentry.errors import SentryError
from helm_sentry.receipt.store import read_run
from helm_sentry.receipt.verify import verify_run

_SUPERVISOR = "from helm_sentry.cli.main import main; main()"
_ALL = "all"
_PATIENCE = 300.0  # seconds for a run to start, and to end
_TRACE = 0.5  # seconds in which a process that outlived its run leaves its trace
_LONG, _SHORT = 20_000, 1_000  # refusals of a flood, in a long suite and in a short one
_LONG_RACE = 2.0
_CONTROL = 10.0  # seconds without a supervisor, where a race ends when it is won;
_WITNESSED = 1.0  # unless others know that alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the suite is played.

    Attributes:
        policy: the user's policy, a file or the name of a shipped one.
        seconds: how long each race under the supervisor lasts.
        tier: as `helm-sentry run --tier` takes it.
        accept_degraded: run although a layer is missing.
        together: all attacks in one supervised run, which is quicker; by default there is one for each group.
    """

    policy: str = "default"
    tier: str = "auto"
    seconds: float = 2.0
    accept_degraded: bool = False
    together: bool = False

    @property
    def patience(self) -> float:
        """Seconds that one attack may take."""
        return 120 + 10 * self.seconds


@dataclass(slots=True)
class _Stage:
    """One arena with a driver in it that plays attacks."""

    arena: Arena
    around: Surroundings
    nursery: Nursery
    settings: Settings
    supervised: bool
    policy: str
    process: subprocess.Popen[str] | Child = field(init=False)
    run: str = field(init=False)
    errors: str = field(init=False)
    inherited: int = field(init=False)
    log: Follower | None = None
    rest: bytes = b""

    def start(self) -> None:
        """Start the driver and wait until it is ready.

        Raises:
            SentryError: the run did not start.
        """
        self.errors = self.arena.path("stderr")
        environment = os.environ | {
            "HOME": self.arena.path("home"),
            "XDG_STATE_HOME": self.arena.path("state"),
            "HELM_ATTACK_TOKEN": "decoy-token",
        }
        secret = os.open(self.arena.path("outside/secret"), os.O_RDONLY)
        with open(self.errors, "w", encoding="utf-8") as errors:
            start = self._start_supervised if self.supervised else self._start
            self.process, self.inherited = start(environment, errors.fileno(), secret)
        os.close(secret)
        if self._line(_PATIENCE).strip() != "ready":
            self.process.kill()
            raise SentryError(f"the attacks could not be started: {self._said()}")
        self.run = _newest_run(self.arena)
        self.log = Follower(self.run) if self.supervised else None

    def _start(self, environment: dict[str, str], errors: int, secret: int) -> tuple[Child, int]:
        workspace = self.arena.path("workspace")
        child = self.nursery.start(
            "driver.py", directory=workspace, environment=environment, errors=errors, inherited=[secret]
        )
        return child, child.inherited

    def _start_supervised(
        self, environment: dict[str, str], errors: int, secret: int
    ) -> tuple[subprocess.Popen[str], int]:
        os.set_inheritable(secret, True)
        process = subprocess.Popen(
            [*self._supervisor(), arenas.interpreter(), *FLAGS, f"{programs_directory()}/driver.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=self.arena.path("workspace"),
            env=environment,
            pass_fds=(secret,),
        )
        return process, secret

    def _supervisor(self) -> list[str]:
        options = ["--tier", self.settings.tier]
        options += ["--accept-degraded"] if self.settings.accept_degraded else []
        return [sys.executable, "-P", "-c", _SUPERVISOR, "run", "--alone", "--policy", self.policy, *options, "--"]

    def facts(self, attacks: list[Attack]) -> dict[str, Any]:
        """Return what the programs are told."""
        control = _WITNESSED if all(attack.witness for attack in attacks) else _CONTROL
        around, arena, state, told = self.around, self.arena, self.arena.path("state/helm-sentry"), self.around.told()
        supervisor = self.process.pid if self.supervised else around.bystander
        return around.ports | {
            "supervised": self.supervised,
            "seconds": self.settings.seconds if self.supervised else max(self.settings.seconds, control),
            "denials": _LONG if self.settings.seconds >= _LONG_RACE else _SHORT,
            "workspace": arena.path("workspace"),
            "outside": arena.path("outside"),
            "state": state,
            "keys": os.listdir(f"{state}/keys"),
            "run": self.run,
            "policy": self.policy,
            "sources": [os.path.abspath(__file__), f"{programs_directory()}/driver.py"],
            "supervisor": supervisor,
            "guardian": supervisor,  # the driver knows better when there is one
            "bystander": around.bystander,
            "bystander_address": told["address"],
            "bystander_descriptor": told["descriptor"],
            "terminal": around.terminal,
            "abstract": around.abstract,
            "inherited": self.inherited,
            "python": arenas.interpreter(),
            "loaders": list(native().loaders),
            "odd_names": [name.hex() for name in arenas.ODD_NAMES],
            "numbers": {row.name: number for number, row in syscalls.table(native()).items()},
        }

    def play(self, attacks: Iterable[Attack]) -> Iterator[Performance]:
        """Play attacks one after another and say what came of each."""
        attacks = list(attacks)
        task = {"facts": self.facts(attacks), "programs": [a.path for a in attacks], "seconds": self.settings.patience}
        stdin = _piped(self.process.stdin)
        stdin.write(json.dumps(task) + "\n")
        stdin.flush()
        self._rules()  # forget what it took to start
        for attack in attacks:
            line = self._line(self.settings.patience + _PATIENCE)
            ended: dict[str, Any] = json.loads(line) if line else {"status": None, "said": "the run ended"}
            witnessed = attack.witness not in ("", "outlived") and self.around.saw(attack.witness)
            self.around.saw("datagram")  # forget what others have sent
            yield Performance(attack, ended["status"], ended["said"], witnessed, tuple(self._rules()))

    def end(self) -> list[str]:
        """End the run and return what is wrong with what it leaves behind."""
        if self.log:
            self.log.close()
        with suppress(OSError):
            _piped(self.process.stdin).close()
        try:
            status = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return ["the run does not end"]
        if isinstance(self.process, Child):
            self.process.close()
            return []
        wrong = [f"the run ended with status {status}: {self._said()}"] if status else []
        try:
            verify_run(read_run(self.run))
        except SentryError as error:
            wrong.append(f"the log does not verify: {error}")
        wrong += _steering(self._said())
        return wrong

    def outlived(self) -> bool:
        """Whether something of the run goes on after its end."""
        with open(self.arena.path("workspace/ended"), "w", encoding="ascii"):
            pass
        end = time.monotonic() + (_TRACE if self.supervised else _PATIENCE)
        trace = self.arena.path("workspace/outlived")
        while not os.path.exists(trace) and time.monotonic() < end:
            select.select([], [], [], 0.01)
        return os.path.exists(trace)

    def _line(self, seconds: float) -> str:
        """Return the driver's next line, empty when it does not come."""
        stdout = _piped(self.process.stdout)
        return stdout.readline() if select.select([stdout], [], [], seconds)[0] else ""

    def _said(self) -> str:
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return file.read()

    def _rules(self) -> set[str]:
        """Return the rules of the user's policy that have allowed something outside since the last look."""
        if self.log is None:
            return set()
        text = self.rest
        while chunk := self.log.read():  # of whatever segment: a long race fills more than one
            text += chunk
        *whole, self.rest = text.split(b"\n")
        records = [json.loads(line) for line in whole if b'"ALLOW"' in line]
        outside = tuple(self.arena.path(name) for name in ("outside/", "workspacefoo/", "workspace/hide0/", "home/"))
        return {record["rule"] for record in records if str(record.get("target", "")).startswith(outside)}


def play(attacks: Iterable[Attack], settings: Settings) -> Iterator[Outcome]:
    """Play attacks group by group: the controls, then the whole group in one supervised run.

    Raises:
        SentryError: a run could not be started.
    """
    with Nursery(programs_directory()) as nursery:
        for group, members in groupby(attacks, lambda attack: _ALL if settings.together else attack.group):
            chosen = list(members)
            controls = {attack.name: _control(attack, nursery, settings) for attack in chosen}
            performed, wrong = _supervised(chosen, nursery, settings)
            for performance in performed:
                yield judge(controls[performance.attack.name], performance)
            yield from (Outcome.left_behind(group, text) for text in wrong)


def _control(attack: Attack, nursery: Nursery, settings: Settings) -> Performance:
    """Play one attack without a supervisor, in an arena of its own."""
    arena = arenas.build()
    try:
        with Surroundings(arena, nursery) as around:
            stage = _Stage(arena, around, nursery, settings, supervised=False, policy=arena.path("policy.json"))
            arenas.write_policy(arena, settings.policy, programs_directory(), {})
            stage.start()
            (performance,) = stage.play([attack])
            stage.end()
            return performance.witness(stage.outlived()) if attack.witness == "outlived" else performance
    finally:
        arena.remove()


def _supervised(attacks: list[Attack], nursery: Nursery, settings: Settings) -> tuple[list[Performance], list[str]]:
    arena = arenas.build()
    try:
        with Surroundings(arena, nursery) as around:
            ports = {name: around.ports[name] for name in ("raced_port", "hanging_port")}
            policy = arenas.write_policy(arena, settings.policy, programs_directory(), ports)
            before = arena.snapshot()
            stage = _Stage(arena, around, nursery, settings, supervised=True, policy=policy)
            stage.start()
            performed = list(stage.play(attacks))
            wrong = stage.end()
            outlived = any(attack.witness == "outlived" for attack in attacks) and stage.outlived()
            performed = [p.witness(outlived) if p.attack.witness == "outlived" else p for p in performed]
            return performed, wrong + _damage(before, arena.snapshot())
    finally:
        arena.remove()


def _damage(before: arenas.Snapshot, after: arenas.Snapshot) -> list[str]:
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return [f"`{path}` has changed" for path in changed]


def _steering(text: str) -> list[str]:
    """Say whether what the supervisor wrote to the terminal could steer it."""
    bad = {mark for mark in text if not mark.isprintable() and mark != "\n"}
    return [f"the messages contain {sorted(bad)}"] if bad else []


def _piped(stream: IO[str] | None) -> IO[str]:
    """Return a stream of a process that was started with a pipe for it."""
    if stream is None:
        raise ValueError("started without a pipe")
    return stream


def _newest_run(arena: Arena) -> str:
    runs = arena.path("state/helm-sentry/runs")
    names = sorted(name for name in os.listdir(runs) if name != "stand-in")
    return os.path.join(runs, names[-1] if names else "stand-in")
