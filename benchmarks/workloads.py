"""Whole programs: a clone, an installation, a compilation, a package with a script, a test suite.

Each is shown twice: as it is, and without what `true` takes on the same side, which is the start of the supervisor.
Beside them the least that any supervisor takes from these programs: one in C that only hears of their calls, and one
that also looks at absolute paths in their place and writes a line; neither decides anything, opens or holds an object.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness import POLICY, Figures, Lab, Row, Side, main

PYTHON = "/usr/bin/python3"
POLICY_OF_ALL = (
    POLICY.replace("extends: [shell]", "extends: [shell, python, node, git]")
    + f"""  - id: packages-beside
    file: {{do: [read, list], paths: ["{sys.prefix}/**"]}}
"""
)


class Program(NamedTuple):
    """What is run, and what it leaves behind that must be gone before it runs again."""

    question: str
    command: list[str]
    leaves: tuple[Path, ...] = ()


def measure(lab: Lab) -> list[Row]:
    sides = _tiers(lab)
    rows: list[Row] = []
    for program in _programs(lab.workspace):
        starts: dict[str, list[Figures]] = {}

        def ask(side: Side, program: Program = program, starts: dict[str, list[Figures]] = starts) -> Figures:
            for path in program.leaves:
                shutil.rmtree(path, ignore_errors=True)
            whole = lab.timed(side, program.command)
            start = lab.timed(side, ["/bin/true"])
            starts.setdefault(side.name, []).append(tuple(a - b for a, b in zip(whole, start, strict=True)))
            return whole

        rows += lab.alternate(program.question, "ms", ask, sides)
        rows += lab.rows(f"{program.question}, without the start", "ms", starts)
    return rows


def _tiers(lab: Lab) -> list[Side]:
    policy = lab.policy_file("workloads", POLICY_OF_ALL)
    sides = lab.supervised(policy)
    plain = sides[0]
    command, run, *options = plain.prefix
    bare = str(lab.compile("bare_supervisor"))
    sides += [Side("a bare C supervisor that lets all go on", (bare, "--go-on"))]
    sides += [Side("a bare C supervisor that looks", (bare, "--look"))]
    tiers = ["ptrace"] if os.geteuid() else ["ptrace", "kernel"]
    for tier in tiers:
        words = [word for word in options if word != "--no-witness" or tier != "kernel"]
        sides.append(replace(plain, name=f"{plain.name}, {tier}", prefix=(command, run, "--tier", tier, *words)))
    return sides


def _programs(place: Path) -> list[Program]:
    library = place / "library"
    shutil.copytree(Path(sys.modules["json"].__file__ or "").parents[1], library, ignore=_few, symlinks=True)
    _repository(place / "repository", library)
    wheel = _wheel(place)
    subprocess.run([PYTHON, "-m", "venv", place / "venv"], check=True)
    pip = ["venv/bin/python", "-m", "pip", "install", "-q", "--no-index", "--force-reinstall", str(wheel)]
    programs = [
        Program("git clone", ["git", "clone", "-q", "repository", "cloned"], (place / "cloned",)),
        Program("compileall of the standard library", [PYTHON, "-m", "compileall", "-q", "-f", "library"]),
        Program("pip install of a wheel", pip),
    ]
    if importlib.util.find_spec("pytest"):
        _tests(place / "project")
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "project/pytest.ini", "project"]
        programs.append(Program("pytest of a small project", tests))
    if shutil.which("npm"):
        (place / "package").mkdir()
        script = (
            "cd package && rm -f package.json && npm init -y && npm pkg set scripts.work='node work.js' && npm run work"
        )
        (place / "package" / "work.js").write_text(
            "const fs = require('fs'); for (let i = 0; i < 200; i++)"
            " { fs.writeFileSync('node-' + i, 'x'); fs.readFileSync('node-' + i); fs.unlinkSync('node-' + i) }"
        )
        programs.append(Program("npm init and a script", ["/bin/sh", "-c", script]))
    return programs


def _few(directory: str, names: list[str]) -> set[str]:
    return {"__pycache__", "test", "tests", "idlelib", "dist-packages", "site-packages", "lib2to3"} & set(names)


def _repository(place: Path, contents: Path) -> None:
    """The standard library with five commits, packed as a repository is that somebody works with."""
    shutil.copytree(contents, place, symlinks=True)
    git = ["git", "-C", str(place), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(5):
        for file in sorted(place.glob("*.py"))[number::5]:
            file.write_text(file.read_text(errors="surrogateescape") + "\n", errors="surrogateescape")
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", f"commit {number}"], check=True)
    subprocess.run([*git, "gc", "-q"], check=True)


def _tests(place: Path) -> None:
    place.mkdir()
    (place / "pytest.ini").write_text("[pytest]\n")  # or it looks for one above the workspace
    for number in range(20):
        tests = "\n".join(f"def test_{case}():\n    assert json.loads('{case}') == {case}" for case in range(5))
        (place / f"test_{number}.py").write_text(f"import json\n{tests}\n")


def _wheel(place: Path) -> Path:
    wheel = place / "example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for number in range(100):
            archive.writestr(f"example/module_{number}.py", f"value = {number}\n" * 20)
        archive.writestr("example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        archive.writestr(
            "example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("example-1.0.dist-info/RECORD", "")
    return wheel


if __name__ == "__main__":
    main(measure, __doc__, rounds=3)
