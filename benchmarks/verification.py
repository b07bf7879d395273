"""How long it takes to verify a run, by the number of its records."""

import time
from pathlib import Path

from harness import Lab, Row, Side, main

RECORDS = (1_000, 10_000, 100_000)


def measure(lab: Lab) -> list[Row]:
    (side, *_) = lab.supervised()
    runs = lab.state / "helm-sentry" / "runs"
    lab.forget_runs = lambda: None  # type: ignore[method-assign]  # these runs are what is looked at
    rows = []
    for records in RECORDS:
        before = set(runs.iterdir()) if runs.exists() else set()
        lab.run(side, [lab.loop, "read", str(int(records * lab.scale)), lab.data])
        (run,) = set(runs.iterdir()) - before
        taken = sorted(_verify(lab, Path(side.prefix[0]), run) for _ in range(lab.rounds))
        figures = (taken[len(taken) // 2],) * 3
        rows.append(Row(f"verify {int(records * lab.scale) * 11 // 10:,} records", side.name, "ms", figures, 0, 1.0))
    return rows


def _verify(lab: Lab, command: Path, run: Path) -> float:
    begin = time.perf_counter()
    lab.run(Side("verify", (str(command), "verify")), [run])
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main(measure, __doc__, rounds=3)
