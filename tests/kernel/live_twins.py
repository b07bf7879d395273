"""Two agents that make the same system calls at the same time, one natively and one supervised.

Each is a `victims/file_calls.c` that lives as long as the test and takes its calls one by one, so that a call can
depend on what the ones before it gave. Between two examples both start over, in a copy of themselves, on fresh trees.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import POWERLESS, Argument, Ref, Script, Value, snapshot, value_of

STRANGER = 12345  # owns what the agent does not, where the tests run as root


@dataclass
class Agent:
    """One side: a process that makes calls, and the directory it makes them in."""

    process: subprocess.Popen[str]
    room: Path

    @property
    def tree(self) -> Path:
        return self.room / "1/2/3/tree"

    def ask(self, line: str) -> tuple[int, int, list[bytes]]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer(line)

    def answer(self, line: str) -> tuple[int, int, list[bytes]]:
        assert self.process.stdout
        if not (text := self.process.stdout.readline()):
            raise AssertionError(f"the agent of {self.room} ended at {line}: {self.process.wait(10)}")
        value, code, buffers = json.loads(text)
        return value, code, [bytes.fromhex(buffer) for buffer in buffers]

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(30)


@dataclass
class LiveTwins:
    """Both sides, and what the current example has done so far."""

    native: Agent
    supervised: Agent
    uid: int
    script: Script = field(default_factory=Script)
    calls: int = 0
    outcomes: Counter[tuple[str, object]] = field(default_factory=Counter)  # by name: an errno, or 0
    order: Collection[
        tuple[str, str, str]
    ] = ()  # calls that may fail with another of their errors: natively, supervised

    hidden: Mapping[str, int] = field(default_factory=dict)  # bits of what a call gives that are not compared

    def begin(self, seed: Callable[[Path], None]) -> None:
        """Start over on fresh trees."""
        self.script = Script()
        for agent in (self.native, self.supervised):
            _plant(agent, seed, self.uid)
            agent.tell(f"begin {os.fsencode(agent.tree).hex()}")

    def call(
        self, name: str, *arguments: Argument | Callable[[Agent], Argument], verb: Literal["call", "spawn"] = "call"
    ) -> tuple[Ref, Value]:
        """Make a call on both sides and return its line and result; an argument may depend on the side.

        Args:
            name: of the system call.
            arguments: its arguments.
            verb: method of `Script` that makes it.

        Raises:
            AssertionError: the two sides differ.
        """
        both = (self.native, self.supervised)
        scripts = [Script(outs=list(self.script.outs)) for _ in both]
        for agent, script in zip(both, scripts, strict=True):
            getattr(script, verb)(name, *(a(agent) if callable(a) else a for a in arguments))
            agent.tell(script.lines[-1])
        self.calls += 1
        self.script.words.append(scripts[0].words[-1])
        results = [
            value_of(agent.answer(script.words[-1]), script.outs[-1], str(agent.room))
            for agent, script in zip(both, scripts, strict=True)
        ]
        if name in self.hidden:
            results = [(v & ~self.hidden[name] if isinstance(v, int) else v, *rest) for v, *rest in results]
        ref = Ref(len(self.script.words) - 1)
        self.outcomes[name, results[0][0] if isinstance(results[0][0], str) else 0] += 1
        if results[0] != results[1] and (name, results[0][0], results[1][0]) not in self.order:
            words = [f"{at} {word}" for at, word in enumerate(self.script.words)][-12:]
            raise AssertionError("\n".join([*words, f"  natively   {results[0]}", f"  supervised {results[1]}"]))
        return ref, results[0]

    def finish(self) -> None:
        """End the example; both trees must be the same."""
        for agent in (self.native, self.supervised):
            assert agent.ask("end")[:2] == (0, 0)
        trees = [snapshot(agent.room / "1") for agent in (self.native, self.supervised)]
        for tree, agent in zip(trees, (self.native, self.supervised), strict=True):
            for name, entry in tree.items():
                tree[name] = _neutral(entry, os.fsencode(agent.room))
        wrong = {
            n: (trees[0].get(n), trees[1].get(n)) for n in trees[0] | trees[1] if trees[0].get(n) != trees[1].get(n)
        }
        assert not wrong, wrong


def _neutral(entry: Any, room: bytes) -> Any:
    return tuple(part.replace(room, b"ROOM") if isinstance(part, bytes) else part for part in entry)


def _plant(agent: Agent, seed: Callable[[Path], None], uid: int) -> None:
    """Make the tree anew. What is above it belongs to somebody else, so that `..` leads nowhere."""
    shutil.rmtree(agent.room, onerror=_unlock)
    umask = os.umask(0o022)
    agent.tree.mkdir(parents=True)
    seed(agent.tree)
    os.umask(umask)
    for directory, names, files in os.walk(agent.tree):
        for place in (directory, *(os.path.join(directory, name) for name in names + files)):
            if os.lstat(place).st_uid == os.getuid():
                os.chown(place, uid, uid, follow_symlinks=False)
    if os.getuid() == 0:
        for place in (agent.tree.parent, *list(agent.tree.parents)[1:4]):
            os.chown(place, STRANGER, STRANGER)


def _unlock(function: Callable[[str], None], path: str, error: Any) -> None:
    """Go on removing what the agent has locked."""
    for place in (os.path.dirname(path), path):
        if os.path.isdir(place) and not os.path.islink(place):
            os.chmod(place, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=_unlock)
    elif os.path.lexists(path):
        os.unlink(path)


@contextmanager
def live_twins(sandbox: Sandbox, program: Path, policy: str) -> Iterator[LiveTwins]:
    """Start both sides; at the end both must leave in good order, with nothing that the supervisor failed at."""
    rooms = [sandbox.workspace / "n", sandbox.workspace / "s"]  # names of the same length
    for room in rooms:
        room.mkdir()
    before = set(sandbox.runs())
    prefix = POWERLESS if sandbox.uid == 0 and os.getuid() == 0 else ("setpriv", "--no-new-privs")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    commands = [[*prefix, str(program)], sandbox.argv([str(program)], sandbox.policy(policy))]
    agents = [Agent(sandbox.popen(c, **pipes), room) for c, room in zip(commands, rooms, strict=True)]
    try:
        yield LiveTwins(*agents, uid=sandbox.uid)
        assert [agent.end() for agent in agents] == [0, 0]
        (run,) = set(sandbox.runs()) - before
        for line in (run / "audit.jsonl").open():
            if '"SUPERVISOR_ERROR"' in line:
                raise AssertionError(line)
        checked = sandbox.verify(run)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        for agent in agents:
            if agent.process.poll() is None:
                agent.process.kill()
                agent.process.wait()
