"""A program that is another one by now is noticed."""

import os
import sys
from pathlib import Path

import pytest

from helm_sentry.standby.program import Loaded


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "a_module_of_the_test.py"
    path.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    __import__(path.stem)
    return path


def test_what_has_not_changed_is_the_same(module: Path) -> None:
    assert Loaded().change() == ""


@pytest.mark.parametrize("way", ["written", "replaced", "touched", "removed"])
def test_a_changed_module_is_named(module: Path, way: str) -> None:
    loaded = Loaded()
    assert loaded.change() == ""
    if way == "written":
        module.write_text("VALUE = 2\n")
    elif way == "replaced":
        (other := module.with_suffix(".new")).write_text("VALUE = 1\n")
        os.replace(other, module)
    elif way == "touched":
        os.utime(module, (1, 1))
    else:
        module.unlink()
    assert loaded.change() == str(module)
