"""Vectors that others published. They are not ours to copy: they are read where they lie, beside the checkout."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors"
_ABSENT = "no vectors beside the checkout"


def published(name: str) -> Any:
    """Return the vectors of one standard; a test that asks for them is skipped where there are none."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        pytest.skip(_ABSENT)
    return json.loads(path.read_bytes())


def each(name: str, member: str) -> list[Any]:
    """Return the cases of a standard as parameters of a test, which bear their names."""
    if not (FOLDER / f"{name}.json").exists():
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=_ABSENT))]
    return [pytest.param(case, id=case["name"]) for case in published(name)[member]]
