"""The benchmarks run from an installed package; how fast this machine is, is no matter here."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernel.conftest import CHECKOUT, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    specification = importlib.util.spec_from_file_location("harness", CHECKOUT / "benchmarks" / "harness.py")
    assert specification and specification.loader
    module = sys.modules["harness"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def bench(sandbox: Sandbox, *words: str) -> tuple[int, str, str]:
    process = sandbox.popen([*sandbox.command, "bench", *words], stdout=-1, stderr=-1)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def test_quick(sandbox: Sandbox) -> None:
    figures = sandbox.workspace / "figures.json"
    status, out, err = bench(sandbox, "quick", "--rounds", "1", "--scale", "0.02", "--json", str(figures))
    assert status == 0, err
    rows = {(row["question"], row["side"]): row for row in json.loads(figures.read_text())["rows"]}
    opened = rows["open+read+close of 1 KiB", "helm-sentry"]
    assert opened["ratio"] > 1 and opened["added"] > 0
    assert rows["start of `true`", "native"]["ratio"] == 1
    assert "| open+read+close of 1 KiB, us | bare C supervisor |" in out


def test_every_question_is_listed(sandbox: Sandbox) -> None:
    status, out, _ = bench(sandbox, "list")
    assert status == 0
    scripts = {path.stem for path in (CHECKOUT / "benchmarks").glob("*.py")}
    assert set(out.split()) == scripts - {"harness", "chart", "servers"} >= {"quick", "workloads", "peers"}


def test_an_unknown_question(sandbox: Sandbox) -> None:
    status, _, err = bench(sandbox, "colour")
    assert status == 2 and "`colour` is not measured" in err


def test_the_gate_compares_ratios(harness: ModuleType, tmp_path: Path) -> None:
    def row(side: str, ratio: float, unit: str = "us") -> object:
        return harness.Row("open", side, unit, (9.0, 9.0, 9.0), 1.0, ratio)

    baseline = [{"question": "open", "side": side, "ratio": 8.0} for side in ("helm-sentry", "native")]
    assert harness.regressions([row("helm-sentry", 9.9), row("native", 99.0)], baseline) == []
    (worse,) = harness.regressions([row("helm-sentry", 10.1)], baseline)
    assert "ratio 10.1 where 8.0" in worse
    assert harness.regressions([row("helm-sentry", 7.0, "opens/s")], baseline) == []
    assert len(harness.regressions([row("helm-sentry", 6.0, "opens/s")], baseline)) == 1


def test_figures_are_medians_of_each_rounds_own(harness: ModuleType) -> None:
    native = [(1.0, 2.0, 3.0), (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)]
    mine = [(2.0, 2.0, 2.0), (40.0, 40.0, 40.0), (8.0, 8.0, 8.0)]
    row = harness._row("q", "us", "mine", mine, native)
    assert (row.figures, row.added, row.ratio) == ((8.0, 8.0, 8.0), 6.0, 4.0)
