"""The tables of `docs/plans.md` are what the commands above them print. The guest's needs a guest: `make plans`."""

import importlib.util
import os
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
SPEC = importlib.util.spec_from_file_location("plans", DOCS / "plans.py")
assert SPEC
assert SPEC.loader
plans = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plans)


@pytest.mark.parametrize("title", plans.HERE_AND_NOW)
def test_table_is_current(title: str) -> None:
    options = plans.HERE_AND_NOW[title]
    if os.geteuid() and not options:
        pytest.skip("only root has the plan of root; the other three are compared")
    document = (DOCS / "plans.md").read_text()
    if os.geteuid():
        assert "needs root" in plans.computed(options)
        return
    assert plans.section(title, options, plans.computed(options)) in document


def test_the_guest_has_a_table_of_the_same_rules() -> None:
    sections = (DOCS / "plans.md").read_text().split("\n## ")
    rows = {
        text.splitlines()[0]: [line.split("|")[1:4] for line in text.splitlines() if line[:1] == "|"]
        for text in sections
    }
    assert rows[plans.GUEST] == rows["A machine as root"]
    assert len(rows[plans.GUEST]) > 10
