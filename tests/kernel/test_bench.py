"""The benchmarks run from an installed package; how fast this machine is, is no matter here."""

import importlib.util
import json
import sys
from types import ModuleType
from xml.etree import ElementTree

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
    figures, chart, kept = (sandbox.workspace / name for name in ("figures.json", "chart.svg", "kept.json"))
    options = ("--json", str(figures), "--chart", str(chart), "--baseline", str(kept))
    status, out, err = bench(sandbox, "quick", "--rounds", "1", "--scale", "0.02", *options)
    assert status == 0, err
    rows = {(row["question"], row["side"]): row for row in json.loads(figures.read_text())["rows"]}
    opened = rows["open+read+close of 1 KiB", "helm-sentry"]
    assert opened["ratio"] > 1 and opened["added"] > 0
    assert rows["start of `true`", "native"]["ratio"] == 1
    assert "| open+read+close of 1 KiB, us | bare C supervisor |" in out
    texts = {text.text for text in ElementTree.parse(chart).iter("{http://www.w3.org/2000/svg}text")}
    assert {"open+read+close of 1 KiB, us", "bare C supervisor", "helm-sentry"} <= texts
    committed = json.loads((CHECKOUT / "benchmarks" / "baseline.json").read_text())
    assert "open+read+close of 1 KiB: helm-sentry" in json.loads(kept.read_text()).keys() <= committed.keys()


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("signing", {("open, read, close on one core", "54,000 a minute denied")}),
        ("verification", {(question, "helm-sentry") for question in ("the same", "a receipt of them")}),
    ],
)
def test_what_evidence_costs(sandbox: Sandbox, question: str, rows: set[tuple[str, str]]) -> None:
    """They verify what they made, and count the receipts in it."""
    figures = sandbox.workspace / "figures.json"
    status, _, err = bench(sandbox, question, "--rounds", "1", "--scale", "0.02", "--json", str(figures))
    assert status == 0, err
    assert rows <= {(row["question"], row["side"]) for row in json.loads(figures.read_text())["rows"]}


def test_every_question_is_listed(sandbox: Sandbox) -> None:
    status, out, _ = bench(sandbox, "list")
    assert status == 0
    scripts = {path.stem for path in (CHECKOUT / "benchmarks").glob("*.py")}
    assert set(out.split()) == scripts - {"harness", "chart", "servers"} >= {"quick", "workloads", "peers"}


def test_an_unknown_question(sandbox: Sandbox) -> None:
    status, _, err = bench(sandbox, "colour")
    assert status == 2 and "`colour` is not measured" in err


def test_the_gate_compares_with_the_floor(harness: ModuleType) -> None:
    def rows(ours: float, floor: float, unit: str = "us") -> list[object]:
        sides = {"native": 1.0, "bare C supervisor": floor, "helm-sentry": ours}
        return [harness.Row("open", side, unit, (figure,) * 3, 0.0, 0.0) for side, figure in sides.items()]

    baseline = harness.gauges(rows(16.0, 10.0))
    assert baseline == {"open: helm-sentry": 1.6}
    assert harness.regressions(harness.gauges(rows(199.0, 100.0)), baseline) == []  # on a machine that is slower
    (worse,) = harness.regressions(harness.gauges(rows(21.0, 10.0)), baseline)
    assert "2.1 times the floor, where 1.6" in worse
    rates = harness.gauges(rows(50.0, 100.0, "opens/s"))
    assert rates == {"open: helm-sentry": 2.0}
    assert len(harness.regressions(harness.gauges(rows(39.0, 100.0, "opens/s")), rates)) == 1
    assert harness.regressions({"other": 9.0}, baseline) == []


def test_a_gate_that_compares_nothing_fails(harness: ModuleType) -> None:
    with pytest.raises(SystemExit, match="nothing of what was measured"):
        harness._pass({"open: helm-sentry": 1.0}, {"close: helm-sentry": 1.0})


def test_figures_are_medians_of_each_rounds_own(harness: ModuleType) -> None:
    native = [(1.0, 2.0, 3.0), (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)]
    mine = [(2.0, 2.0, 2.0), (40.0, 40.0, 40.0), (8.0, 8.0, 8.0)]
    row = harness._row("q", "us", "mine", mine, native)
    assert (row.figures, row.added, row.ratio) == ((8.0, 8.0, 8.0), 6.0, 4.0)
