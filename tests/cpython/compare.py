"""CPython's own tests, natively and supervised: every test must come to the same verdict.

    python tests/cpython/compare.py [-k PATTERN]... [MODULE...]      (make cpython-tests)

The tests are Debian's libpython3.11-testsuite, unpacked into a directory that is removed again, and run by the system's
Python. As root the tests run as uid 65534. What may differ, and the kernel's reason, is listed in docs/limitations.md
in lines of the form "- `module.Class.test`: reason", where * stands for any characters. A test that differs is run again,
up to three times on both sides: some of CPython's tests win or lose races of their own.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMITATIONS = HERE.parents[1] / "docs" / "limitations.md"
PACKAGE = "libpython3.11-testsuite"
PYTHON = "/usr/bin/python3.11"
NOBODY = 65534
PATIENCE, REPETITIONS = 600, 3  # seconds for one module
MODULES = (
    "test_os", "test_posix", "test_posixpath", "test_pathlib", "test_shutil", "test_tempfile", "test_glob",
    "test_fileio", "test_io", "test_mmap", "test_subprocess", "test_socket", "test_socketserver", "test_asyncio",
    "test_multiprocessing_fork", "test_signal",
)  # fmt: skip
POLICY = """schema: helm-sentry/policy/v1
name: generous
extends: [default]
allow:
  - {id: everything-readable, file: {do: [read, list, stat], paths: ["/**"]}}
  - {id: temporary-files, file: {do: [all], paths: ["/tmp/**", "/dev/shm/**"]}}
  - {id: programs, exec: {paths: ["/usr/**", "/tmp/**"]}}
  - {id: connect, connect: {addresses: [any], ports: [any]}}
  - {id: bind, bind: {addresses: [any], ports: [any]}}
  - {id: unix, unix: {do: [connect, bind], paths: ["/tmp/**"]}}
  - {id: families, socket: {families: [netlink, alg, packet, can, vsock, qipcrtr, bluetooth, tipc]}}
  - {id: memory, kernel: [memfd]}
environment: {pass: ["*"]}
"""
Verdicts = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Side:
    """How one side runs a command."""

    prefix: tuple[str, ...]
    room: Path
    suite: Path
    uid: int

    def verdicts(self, module: str, patterns: Sequence[str]) -> Verdicts:
        place = Path(tempfile.mkdtemp(dir=self.room))
        os.chown(place, self.uid, self.uid)
        verdicts = place / "verdicts"
        with (place / "output").open("wb") as output:
            command = [*self.prefix, PYTHON, "-B", str(HERE / "one_module.py"), module, str(verdicts), *patterns]
            environment = {
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "PYTHONPATH": str(self.suite),
                "HOME": str(self.room), "TMPDIR": str(place), "XDG_STATE_HOME": str(self.room / "state"),
            }  # fmt: skip
            identity = {"user": self.uid, "group": self.uid, "extra_groups": []} if self.uid != os.getuid() else {}
            process = subprocess.Popen(
                command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, **identity,
            )  # fmt: skip
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        found = {name: (verdict, text) for name, verdict, text in map(json.loads, verdicts.open())}
        if process.returncode:
            tail = (place / "output").read_text(errors="replace")[-3000:]
            found[f"{module} as a whole"] = (f"exit {process.returncode}", tail)
        return found


def test_suite(room: Path) -> Path:
    """Return a directory that holds the package `test` whole."""
    subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=room, check=True, stdout=subprocess.DEVNULL)
    (archive,) = room.glob(f"{PACKAGE}*.deb")
    subprocess.run(["dpkg", "-x", archive.name, "suite"], cwd=room, check=True)
    installed = Path("/usr/lib/python3.11/test")
    whole = room / "suite/usr/lib/python3.11/test"
    for part in ("support", "libregrtest"):
        if not (whole / part).exists():
            shutil.copytree(installed / part, whole / part)
    for part in installed.glob("*.py"):
        if not (whole / part.name).exists():
            shutil.copy(part, whole / part.name)
    lean = room / "suite/lean"  # only this package: the rest would hide the system's own
    lean.mkdir()
    whole.rename(lean / "test")
    return lean


@dataclass(frozen=True)
class Listed:
    """The tests that may differ, and why."""

    lines: tuple[tuple[str, str], ...]

    def reason(self, name: str) -> str:
        return next((reason for pattern, reason in self.lines if fnmatchcase(name, pattern)), "")


def listed() -> Listed:
    return Listed(tuple(re.findall(r"^- `(test_[^`]+)`: (.+)$", LIMITATIONS.read_text(), re.MULTILINE)))


def again(native: Side, supervised: Side, module: str, name: str) -> str:
    """Return what to say of a test that comes to the same verdict when both sides repeat it; empty if it never does."""
    case = name.rpartition(".")[2]
    for attempt in range(REPETITIONS):
        both = [side.verdicts(module, [case]) for side in (native, supervised)]
        one, other = ({n.removeprefix("test."): v for n, (v, _) in found.items()} for found in both)
        if name in one and one[name] == other.get(name):
            return f"the same at repetition {attempt + 1}"
    return ""


def differences(native: Verdicts, supervised: Verdicts) -> Iterator[tuple[str, str, str, str]]:
    nothing = ("missing", "")
    for name in sorted(native.keys() | supervised.keys()):
        one, other = native.get(name, nothing), supervised.get(name, nothing)
        if one[0] != other[0]:
            yield name.removeprefix("test."), one[0], other[0], other[1] or one[1]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("-k", action="append", default=[], metavar="PATTERN", help="only tests that match")
    arguments.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE")
    given = arguments.parse_args()
    known, strange = listed(), Counter[str]()
    room = Path(tempfile.mkdtemp(prefix="cpython-tests-"))
    room.chmod(0o755)
    uid = NOBODY if os.getuid() == 0 else os.getuid()
    try:
        suite = test_suite(room)
        (room / "state").mkdir()
        os.chown(room / "state", uid, uid)
        policy = room / "generous.yaml"
        policy.write_text(POLICY)
        sentry = (str(Path(sysconfig.get_path("scripts")) / "helm-sentry"), "run", "--policy", str(policy), "--")
        # A supervised program can gain no privilege, and neither may the control.
        native = Side(("setpriv", "--no-new-privs"), room, suite, uid)
        supervised = Side(sentry, room, suite, uid)
        totals: dict[str, Counter[str]] = {"native": Counter(), "supervised": Counter()}
        for module in given.modules:
            started = time.monotonic()
            one = native.verdicts(module, given.k)
            between = time.monotonic()
            other = supervised.verdicts(module, given.k)
            took = (between - started, time.monotonic() - between)
            for side, found in (("native", one), ("supervised", other)):
                totals[side].update(verdict for verdict, _ in found.values())
            print(
                f"{module:28} {_counts(one)} in {took[0]:.0f} s; supervised {_counts(other)} in {took[1]:.0f} s",
                flush=True,
            )
            for name, wanted, found, detail in differences(one, other):
                verdict = known.reason(name) or again(native, supervised, module, name)
                strange["listed" if known.reason(name) else "once" if verdict else "unlisted"] += 1
                print(f"  {name}: {wanted} natively, {found} supervised" + (f" ({verdict})" if verdict else ""))
                if not verdict:
                    print("    " + detail.strip().replace("\n", "\n    "))
    finally:
        shutil.rmtree(room, ignore_errors=True)
    for side, counts in totals.items():
        print(f"{side}: {counts['passed']} passed, {counts['skipped']} skipped, {_other(counts)} otherwise")
    print(
        f"{strange['unlisted']} differences that are not listed; {strange['listed']} listed, {strange['once']} not repeated"
    )
    return 1 if strange["unlisted"] else 0


def _counts(found: Verdicts) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(Counter(v for v, _ in found.values()).items()))


def _other(counts: Counter[str]) -> int:
    return sum(counts.values()) - counts["passed"] - counts["skipped"]


if __name__ == "__main__":
    sys.exit(main())
