"""How much memory a supervisor takes after so many decisions: it must not grow. Five million take some minutes."""

import os
import subprocess
from pathlib import Path

from harness import Lab, Row, main

DECISIONS = (10_000, 500_000, 5_000_000)


def measure(lab: Lab) -> list[Row]:
    (side, *_) = lab.supervised()
    rows = []
    for decisions in DECISIONS:
        count = int(decisions * lab.scale)
        process = subprocess.Popen(
            [*side.prefix, lab.loop, "read", str(count), str(lab.data)],
            env=os.environ | {"XDG_STATE_HOME": str(lab.state)},
            stdout=subprocess.DEVNULL,
        )
        peak = _peak(process)
        lab.forget_runs()
        rows.append(Row(f"supervisor after {count * 11 // 10:,} decisions", side.name, "MB", (peak,) * 3, peak, 1.0))
    return rows


def _peak(process: "subprocess.Popen[bytes]") -> float:
    """The supervisor's own peak, which its status tells as long as it runs."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        peak = max(peak, int(fields.get("VmHWM", "0 kB").split()[0]))
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return round(peak / 1024, 1)


if __name__ == "__main__":
    main(measure, __doc__)
