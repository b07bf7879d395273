"""What all benchmarks share: a place to run in, sides that take turns, figures and how they are shown.

Method: the sides of a question run in turn, round after round (A B C A B C …), so that a machine whose speed drifts
slows all of them. A side's figure is the median over rounds; what a side adds, and its ratio, are the medians of each
round's own difference and quotient. Quote ratios: absolute times belong to the machine they were taken on.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import click

HERE = Path(__file__).parent
NATIVE, OURS = "native", "helm-sentry"
FLOORS = ("bare C supervisor", "an empty filter")  # what the kernel takes from any supervisor, or for any filter
SLACK = 1.25
Figures = tuple[float, ...]
"""Median, 95th and 99th percentile; or one figure three times."""

POLICY = """schema: helm-sentry/policy/v1
name: benchmark
extends: [shell]
allow:
  - id: workspace
    file: {do: [read, list, write, create, delete, rename, link, chmod, utime, xattr], paths: ["${workspace}/**"]}
  - id: programs
    exec: {paths: ["${workspace}/**"]}
  - id: loopback
    connect: {addresses: [127.0.0.1/32], ports: ["1-65535"], protocols: [tcp, udp]}
  - id: any-port
    bind: {addresses: [127.0.0.1/32], ports: ["0-65535"], protocols: [tcp, udp]}
  - id: sockets
    unix: {do: [connect, bind], paths: ["${workspace}/**"]}
"""


KERNEL_POLICY = Path(__file__).resolve().parent.parent / "docs" / "kernel-tier.yaml"


@dataclass(frozen=True)
class Side:
    """One way to run a program.

    Attributes:
        name: what the tables call it.
        prefix: words before the program.
        environment: what is set besides.
    """

    name: str
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The answer of one side to one question.

    Attributes:
        question: what was done.
        side: by what.
        unit: of all figures but the ratio.
        figures: median, 95th and 99th percentile.
        added: what it takes more than natively.
        ratio: how many times as much as natively.
    """

    question: str
    side: str
    unit: str
    figures: Figures
    added: float
    ratio: float


class Lab:
    """A throw-away workspace with a policy, compiled programs, and the sides.

    Attributes:
        workspace: where programs run.
        rounds: how often the sides take turns.
        scale: multiplies the number of operations in a round.
    """

    def __init__(self, workspace: Path, rounds: int, scale: float) -> None:
        self.workspace, self.rounds, self.scale = workspace, rounds, scale
        self.state = workspace.parent / "state"
        self.policy = self.policy_file("policy", POLICY)
        self.data = workspace / "data"
        self.data.write_bytes(os.urandom(1024))
        self.loop = str(self.compile("loop"))

    def policy_file(self, name: str, text: str) -> Path:
        path = self.workspace.parent / f"{name}.yaml"
        path.write_text(text)
        return path

    def compile(self, name: str) -> Path:
        program = self.workspace / name
        subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c", "-lpthread"], check=True)
        return program

    def supervised(self, policy: Path | None = None) -> list[Side]:
        """helm-sentry; as root once with the witness, which only root has, and once without."""
        command = shutil.which("helm-sentry", path=str(Path(sys.executable).parent)) or "helm-sentry"
        options = ("run", "--quiet", "--policy", str(policy or self.policy), "--workspace", str(self.workspace))
        plain = Side("helm-sentry", (command, *options, "--no-witness", "--"))
        return [plain] if os.geteuid() else [plain, Side("helm-sentry with its witness", (command, *options, "--"))]

    def traced(self) -> list[Side]:
        """helm-sentry where no listener can be had, and strace, which decides nothing.

        strace of all calls, of those alone that helm-sentry looks at too, and of these with strace and its program held
        to one processor, where a stop costs least: the kernel else moves both between processors, or does not, by what
        else runs.
        """
        (plain, *_) = self.supervised()
        command, run, *options = plain.prefix
        ours = Side("helm-sentry, ptrace", (command, run, "--tier", "ptrace", *options))
        words = ("strace", "-f", "--seccomp-bpf", "-o", os.devnull)
        some = ("-e", "trace=%file,%process,%network")
        traces = [Side(" ".join(words[:3]), words), Side("the same, of files, processes, network", (*words, *some))]
        if shutil.which("taskset"):
            one = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
            traces.append(Side("the same, on one processor", (*one, *words, *some)))
        return [ours, *traces] if shutil.which("strace") else [ours]

    def in_the_kernel(self) -> list[Side]:
        """helm-sentry where the kernel holds reading by itself, which takes root, and the same policy where it does not."""
        if os.geteuid() or not KERNEL_POLICY.exists():
            return []
        policy = self.policy_file("kernel-tier", KERNEL_POLICY.read_text())
        plain = self.supervised(policy)[1]
        return [
            Side(f"{OURS}, {name} tier, kernel-tier.yaml", (*plain.prefix[:-1], "--tier", name, "--"))
            for name in ("seccomp", "kernel")
        ]

    def run(self, side: Side, command: Sequence[str | Path]) -> str:
        """Run a program on a side and return its output; a failure ends the benchmark with what was said."""
        environment = os.environ | {"XDG_STATE_HOME": str(self.state)} | dict(side.environment)
        done = subprocess.run(
            [*side.prefix, *map(str, command)],
            cwd=self.workspace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{side.name}: {command} ended with {done.returncode}: {done.stderr[-2000:]}")
        self.forget_runs()
        return done.stdout

    def forget_runs(self) -> None:
        """Remove the logs: a long benchmark would fill the disk with them."""
        shutil.rmtree(self.state / "helm-sentry" / "runs", ignore_errors=True)

    def looped(self, side: Side, operation: str, count: int, *arguments: object) -> Figures:
        """Time one operation of loop.c, in microseconds."""
        times = max(20, int(count * self.scale))
        words = self.run(side, [self.loop, operation, str(times), *map(str, arguments)]).split()
        return tuple(int(word) / 1000 for word in words)

    def timed(self, side: Side, command: Sequence[str | Path]) -> Figures:
        """Time a whole program, in milliseconds."""
        begin = time.perf_counter()
        self.run(side, command)
        taken = (time.perf_counter() - begin) * 1000
        return taken, taken, taken

    def alternate(
        self, question: str, unit: str, ask: Callable[[Side], Figures], sides: Sequence[Side], rounds: int = 0
    ) -> list[Row]:
        """Ask every side in turn; `native` always comes first."""
        everyone = [Side(NATIVE), *sides]
        for side in everyone:  # warms caches; its figures are not used
            ask(side)
        asked: dict[str, list[Figures]] = {side.name: [] for side in everyone}
        turns = [side for _ in range(rounds or self.rounds) for side in everyone]
        with click.progressbar(turns, label=f"{question:44}", file=sys.stderr) as progress:
            for side in progress:
                asked[side.name].append(ask(side))
        return self.rows(question, unit, asked)

    def rows(self, question: str, unit: str, asked: Mapping[str, list[Figures]]) -> list[Row]:
        """Return what the answers of all sides come to, which were given in turn."""
        rounds = len(asked[NATIVE]) if len(asked) == 1 else min(map(len, asked.values()))
        last = {name: answers[-rounds:] for name, answers in asked.items()}
        return [_row(question, unit, name, answers, last[NATIVE]) for name, answers in last.items()]


def _row(question: str, unit: str, side: str, answers: list[Figures], native: list[Figures]) -> Row:
    pairs = list(zip(answers, native, strict=True))
    return Row(
        question,
        side,
        unit,
        tuple(round(statistics.median(column), 2) for column in zip(*answers, strict=True)),
        round(statistics.median(mine[0] - theirs[0] for mine, theirs in pairs), 2),
        round(statistics.median(mine[0] / theirs[0] for mine, theirs in pairs), 3),
    )


def host() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "helm-sentry": metadata.version("helm-sentry"),
        "root": os.geteuid() == 0,
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def markdown(rows: Sequence[Row]) -> str:
    """A table as GitHub shows it."""
    lines = ["| question | side | p50 | p95 | p99 | added | ratio |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        p50, p95, p99 = (f"{figure:,.1f}" for figure in row.figures)
        added = "" if row.side == NATIVE else f"{row.added:,.1f}"
        ratio = "" if row.side == NATIVE else f"{row.ratio:,.2f}"
        lines.append(f"| {row.question}, {row.unit} | {row.side} | {p50} | {p95} | {p99} | {added} | {ratio} |")
    return "\n".join(lines)


def _memory_disk() -> str | None:
    """A directory that no disk slows down, if programs can be run from it."""
    place = "/dev/shm"
    if not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_NOEXEC:
        return None
    return place


@contextmanager
def laboratory(rounds: int, scale: float, *, in_memory: bool = True) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="sentry-bench-", dir=_memory_disk() if in_memory else None) as directory:
        workspace = Path(os.path.realpath(directory)) / "workspace"
        workspace.mkdir()
        yield Lab(workspace, rounds, scale)


def main(measure: Callable[[Lab], list[Row]], description: str, rounds: int = 7, *, in_memory: bool = True) -> None:
    """The command line of every benchmark."""
    parser = argparse.ArgumentParser(
        description=f"{description}\n{__doc__}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="how often the sides take turns")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the operations in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw them there, as SVG")
    parser.add_argument(
        "--gate", type=Path, metavar="FILE", help="fail if helm-sentry is a quarter slower than FILE says"
    )
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="put into FILE what --gate is to compare with")
    options = parser.parse_args()
    about = host()
    with laboratory(options.rounds, options.scale, in_memory=in_memory) as lab:
        rows = measure(lab)
    about["load afterwards"] = os.getloadavg()[0]
    print(f"{about['machine']}, {about['processors']} processors, Linux {about['kernel']}, Python {about['python']}")
    print(f"{options.rounds} rounds, load {about['load']:.1f} to {about['load afterwards']:.1f}\n\n{markdown(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"host": about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    if options.chart:
        from chart import draw

        draw(rows, options.chart)
    if options.baseline:
        before = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
        options.baseline.write_text(json.dumps(before | gauges(rows), indent=2, sort_keys=True) + "\n")
    if options.gate:
        _pass(gauges(rows), json.loads(options.gate.read_text()))


def _pass(gauged: Mapping[str, float], baseline: Mapping[str, float]) -> None:
    if not gauged.keys() & baseline.keys():
        sys.exit("the baseline has nothing of what was measured")
    if worse := regressions(gauged, baseline):
        sys.exit("slower than the baseline:\n" + "\n".join(worse))
    print(f"\nnone of {len(gauged.keys() & baseline.keys())} is slower than the baseline")


def gauges(rows: Sequence[Row]) -> dict[str, float]:
    """How many times as long as the floor, or else natively, each of helm-sentry's answers took.

    Absolute times of two machines, or of two days, say nothing; of a floor's the machine's share in a round trip cancels.
    """
    gauged = {}
    for row in rows:
        sides = {other.side: other.figures[0] for other in rows if other.question == row.question}
        floor = next((sides[side] for side in FLOORS if side in sides), sides[NATIVE])
        if row.side.startswith(OURS):
            quick, slow = (row.figures[0], floor) if row.unit.endswith("/s") else (floor, row.figures[0])
            gauged[f"{row.question}: {row.side}"] = round(slow / quick, 3)
    return gauged


def regressions(gauged: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """What is slower than a baseline by more than a quarter; what only one of both has is not compared."""
    return [
        f"  {name}: {gauged[name]} times the floor, where {baseline[name]} was measured"
        for name in sorted(gauged.keys() & baseline.keys())
        if gauged[name] > baseline[name] * SLACK
    ]
