"""Run what needs another kernel under each of them, all at once: `every_kernel.py PROCESSORS TESTS KERNEL...` (Makefile).

Exit status 0: every guest's tests passed. What a guest printed is in build/vm/KERNEL.txt.
"""

import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import guest

CHECKOUT = Path(__file__).resolve().parents[2]
KEPT = CHECKOUT / "build/vm"
PYTHON = CHECKOUT / ".venv/bin/python"
MOST_SECONDS = 1200  # on a busy machine; by themselves two guests take a third of it


def main() -> int:
    began = time.monotonic()
    kernels = sys.argv[3:] or list(guest.PACKAGES)
    KEPT.mkdir(parents=True, exist_ok=True)
    for kernel in kernels:
        guest.prepare(guest.PACKAGES[kernel])
    # Guests see this machine's files and write none: without this they would compile every module at every start.
    compiled = [CHECKOUT / name for name in ("helm_sentry", "tests/vm", "tests/attacks")]
    subprocess.run([PYTHON, "-m", "compileall", "-q", *compiled], check=True)
    subprocess.run([PYTHON, CHECKOUT / "tests/vm/compile_ahead.py", KEPT / "programs", guest.CACHE], check=True)
    with open(KEPT / "copies", "w", encoding="utf-8") as copies:
        subprocess.run([PYTHON, CHECKOUT / "tests/vm/often_read.py"], stdout=copies, check=True)
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(run, kernels))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"all guests: {time.monotonic() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor time; "
        f"load {os.getloadavg()[2]:.1f}"
    )
    return max(results)


def run(kernel: str) -> int:
    began = time.monotonic()
    command = [sys.executable, CHECKOUT / "tests/vm/guest.py", "--kernel", kernel, "--timeout", str(MOST_SECONDS)]
    command += ["--processors", sys.argv[1], "--copies", KEPT / "copies", "--"]
    command += [CHECKOUT / "tests/vm/inside.sh", KEPT / "programs", sys.argv[2]]
    with open(KEPT / f"{kernel}.txt", "w+", encoding="utf-8", errors="replace") as output:
        status = subprocess.run(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
        output.seek(0)
        print(
            f"=== Linux {kernel}: status {status} after {time.monotonic() - began:.0f} s\n{output.read()}", flush=True
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
