"""Names that will be others the next time."""

import re

import pytest

from helm_sentry.policy import pattern
from helm_sentry.policy.generalise import Confidence, form

MEDIUM, LOW, HIGH = Confidence.MEDIUM, Confidence.LOW, Confidence.HIGH


@pytest.mark.parametrize(
    ("name", "glob", "confidence"),
    [
        ("python3.11", "python[0-9]*", MEDIUM),
        ("node-v20.11.1", "node-v[0-9]*", MEDIUM),
        ("langgraph-1.2.22.dist-info", "langgraph-[0-9]*.dist-info", MEDIUM),
        ("tmpab12cd_9", "tmp????????", MEDIUM),
        ("pip-unpack-abcdefgh", "pip-unpack-????????", MEDIUM),
        ("ccAbC12x.s", "cc??????.s", MEDIUM),
        ("tmp_obj_Xy12Ab", "tmp_obj_??????", LOW),
        ("4711", "[0-9]*", LOW),
        ("log.20261121", "log.[0-9]*", LOW),
        ("a3f0b1c2d3e4f5a6", "[0-9a-f]" + "?" * 15, MEDIUM),
        ("x-0d9f7e0e-0b0c-4b5e-9f5a-0123456789ab", "x-????????-????-????-????-????????????", HIGH),
        (
            "0d9f7e0e-0b0c-4b5e-9f5a-0123456789ab.1795259501377057277.sh",
            "?" * 8 + "-????" * 3 + "-" + "?" * 12 + ".[0-9]*.sh",
            HIGH,
        ),
        ("we[ird]-1.2", "we\\[ird]-[0-9]*", MEDIUM),
    ],
)
def test_forms(name: str, glob: str, confidence: Confidence) -> None:
    found = form(name)
    assert found is not None
    assert (found.glob, found.confidence) == (glob, confidence)
    parsed = pattern.parse(f"/d/{glob}")
    assert re.fullmatch(pattern.regex(parsed.rest), f"/{name}")
    assert found.after(2) is HIGH


@pytest.mark.parametrize(
    "name",
    ["README.md", "libssl.so.3", "site-packages", "x86_64-linux-gnu", "package.json", "notes-Monday.txt",
     "test_something.py", "index-v5", "deadbeefcafe"[:5], ".git", "Makefile", "file.backup"],
)  # fmt: skip
def test_names_that_stand_for_themselves(name: str) -> None:
    assert form(name) is None
