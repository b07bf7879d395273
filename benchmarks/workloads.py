"""Whole programs: a clone, an installation, a compilation, a package with a script, a test suite."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from harness import POLICY, Lab, Row, Side, main

POLICY_OF_ALL = POLICY.replace("extends: [shell]", "extends: [shell, python, node, git]")


def measure(lab: Lab) -> list[Row]:
    sentry = lab.supervised(lab.policy_file("workloads", POLICY_OF_ALL))
    rows: list[Row] = []
    for question, command, clean in _programs(lab.workspace):

        def ask(side: Side, command: list[str] = command, clean: list[Path] = clean) -> tuple[float, ...]:
            for path in clean:
                shutil.rmtree(path, ignore_errors=True)
            return lab.timed(side, command)

        rows += lab.alternate(question, "ms", ask, sentry, rounds=min(lab.rounds, 3))
    return rows


def _programs(place: Path) -> list[tuple[str, list[str], list[Path]]]:
    python = "/usr/bin/python3"
    library = place / "library"
    shutil.copytree(Path(sys.modules["json"].__file__ or "").parents[1], library, ignore=_few, symlinks=True)
    _repository(place / "repository", library)
    wheel = _wheel(place)
    subprocess.run([python, "-m", "venv", place / "venv"], check=True)
    tests = place / "tests"
    tests.mkdir()
    for number in range(20):
        (tests / f"test_{number}.py").write_text("import json\ndef test_it():\n    assert json.loads('1') == 1\n")
    programs = [
        ("git clone", ["git", "clone", "-q", "repository", "cloned"], [place / "cloned"]),
        ("compileall of the standard library", [python, "-m", "compileall", "-q", "-f", "library"], []),
        (
            "pip install of a wheel",
            ["venv/bin/python", "-m", "pip", "install", "-q", "--no-index", "--force-reinstall", str(wheel)],
            [],
        ),
        ("unittest of a small project", [python, "-m", "unittest", "discover", "-q", "-s", "tests"], []),
    ]
    if node := shutil.which("node"):
        (place / "script.js").write_text(
            "const fs = require('fs'); for (let i = 0; i < 200; i++)"
            " { fs.writeFileSync('node-' + i, 'x'); fs.readFileSync('node-' + i); fs.unlinkSync('node-' + i) }"
        )
        programs.append(("node with 200 files", [node, "script.js"], []))
    return programs


def _few(directory: str, names: list[str]) -> set[str]:
    return {"__pycache__", "test", "tests", "idlelib", "dist-packages", "site-packages", "lib2to3"} & set(names)


def _repository(place: Path, contents: Path) -> None:
    shutil.copytree(contents / "asyncio", place / "asyncio")
    shutil.copytree(contents / "email", place / "email")
    git = ["git", "-C", str(place), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)


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
