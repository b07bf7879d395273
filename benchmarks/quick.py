"""Two questions, answered side by side in one run: what does an open cost more, and how long does a start take?

Method: native and supervised runs alternate (A B A B …), so that a machine whose speed drifts slows both. The figure
of a question is the median over rounds of each round's own figure; the ratio is the median of the ratios of
neighbouring rounds. Quote ratios; absolute times belong to the machine they were taken on.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
POLICY = """schema: helm-sentry/policy/v1
name: benchmark
extends: [base]
allow:
  - id: workspace
    file: {do: [read, list], paths: ["${workspace}/**"]}
  - id: programs
    exec: {paths: ["${workspace}/**", /bin/true, /usr/bin/true]}
"""


def measure(rounds: int, opens: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="sentry-bench-") as directory:
        workspace = Path(os.path.realpath(directory))
        (workspace / "policy.yaml").write_text(POLICY)
        (workspace / "data").write_bytes(os.urandom(1024))
        subprocess.run(["cc", "-O2", "-o", workspace / "open_loop", HERE / "open_loop.c"], check=True)
        environment = os.environ | {"XDG_STATE_HOME": str(workspace / "state")}
        sentry = [Path(sys.executable).parent / "helm-sentry", "run", "--quiet"]
        supervised = [*sentry, "--policy", workspace / "policy.yaml", "--workspace", workspace, "--"]

        def opening(prefix: list[object]) -> tuple[float, float]:
            command = [*prefix, workspace / "open_loop", workspace / "data", str(opens)]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            median, tail = (int(word) / 1000 for word in out.split())
            return median, tail

        def starting(prefix: list[object]) -> tuple[float, float]:
            begin = time.perf_counter()
            subprocess.run([*prefix, "/bin/true"], env=environment, check=True)
            taken = (time.perf_counter() - begin) * 1000
            return taken, taken

        bare = [sys.executable, HERE / "bare_supervisor.py"]
        return {
            "open+read+close of 1 KiB, us": compare(opening, supervised, rounds),
            "the same, bare supervisor, us": compare(opening, bare, rounds),
            "start of `true`, ms": compare(starting, supervised, rounds),
        }


def compare(
    question: Callable[[list[object]], tuple[float, float]], supervised: list[object], rounds: int
) -> dict[str, float]:
    question([])
    question(supervised)
    pairs = [(question([]), question(supervised)) for _ in range(rounds)]
    native = statistics.median(a[0] for a, _ in pairs)
    held = statistics.median(b[0] for _, b in pairs)
    return {
        "native": round(native, 2),
        "supervised": round(held, 2),
        "added": round(statistics.median(b[0] - a[0] for a, b in pairs), 2),
        "ratio": round(statistics.median(b[0] / a[0] for a, b in pairs), 2),
        "supervised p99": round(statistics.median(b[1] for _, b in pairs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--opens", type=int, default=5000)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    results = measure(options.rounds, options.opens)
    host = (
        f"{platform.machine()}, {os.cpu_count()} cpus, Linux {platform.release()}, Python {platform.python_version()}"
    )
    if options.json:
        print(
            json.dumps({"host": host, "rounds": options.rounds, "opens": options.opens, "results": results}, indent=2)
        )
        return
    print(f"{host}; {options.rounds} alternating rounds, {options.opens} opens a round\n")
    print(f"{'':32}{'native':>10}{'supervised':>12}{'added':>10}{'ratio':>8}{'p99':>10}")
    for name, figures in results.items():
        row = [figures[key] for key in ("native", "supervised", "added", "ratio", "supervised p99")]
        print(f"{name:32}{row[0]:>10}{row[1]:>12}{row[2]:>10}{row[3]:>8}{row[4]:>10}")


if __name__ == "__main__":
    main()
