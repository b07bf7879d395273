"""How long it takes to verify a run and to extract one receipt, by the number of its records, and the memory it takes.

A run of a million records must verify in a minute with less than 300 MB, and give a receipt in a second, or this fails.
"""

import os
import subprocess
import time
from pathlib import Path

from harness import Lab, Row, main

RECORDS = (1_000, 10_000, 100_000, 1_000_000)
MOST = {"ms": 60_000.0, "MB": 300.0, "ms, receipt": 1_000.0}


def measure(lab: Lab) -> list[Row]:
    (side, *_) = lab.supervised()
    runs = lab.state / "helm-sentry" / "runs"
    lab.forget_runs = lambda: None  # type: ignore[method-assign]  # these runs are what is looked at
    rows = []
    for records in RECORDS:
        before = set(runs.iterdir()) if runs.exists() else set()
        lab.run(side, [lab.loop, "read", str(int(records * lab.scale)), lab.data])
        (run,) = set(runs.iterdir()) - before
        rows += _measured(lab, Path(side.prefix[0]), run, side.name)
    return rows


def _measured(lab: Lab, command: Path, run: Path, side: str) -> list[Row]:
    found = [_timed(lab, [command, "verify", run]) for _ in range(lab.rounds)]
    count = int(found[0][2].split()[1].replace(",", ""))
    shown = [_timed(lab, [command, "receipt", "show", run, str(count // 2)])[0] for _ in range(lab.rounds)]
    taken, memory, receipt = (_middle(column) for column in ([f[0] for f in found], [f[1] for f in found], shown))
    for figure, most in zip((taken, memory, receipt), MOST.values(), strict=True):
        if figure > most:
            raise SystemExit(f"{count:,} records: {taken:.0f} ms, {memory:.0f} MB, a receipt in {receipt:.0f} ms")
    asked = (
        (f"verify {count:,} records", "ms", taken),
        ("the same", "MB", memory),
        ("a receipt of them", "ms", receipt),
    )
    return [Row(question, side, unit, (figure,) * 3, 0, 1.0) for question, unit, figure in asked]


def _middle(figures: list[float]) -> float:
    return sorted(figures)[len(figures) // 2]


def _timed(lab: Lab, command: list[object]) -> tuple[float, float, str]:
    """Run a command; return milliseconds, megabytes and what it said."""
    environment = os.environ | {"XDG_STATE_HOME": str(lab.state)}
    begin = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return (time.perf_counter() - begin) * 1000, usage.ru_maxrss / 1024, output


if __name__ == "__main__":
    main(measure, __doc__, rounds=3)
