"""The page about every system call is made from the table, and says of each why it is treated as it is."""

import runpy
import sys
from pathlib import Path

import pytest

from helm_sentry.abi import reference, syscalls
from helm_sentry.abi.syscalls import GROUPS, Treatment

PAGE = Path(__file__).resolve().parents[3] / "docs/syscalls.md"


def test_the_page_is_current() -> None:
    assert reference.fill(PAGE.read_text()) == PAGE.read_text(), (
        "run: python -m helm_sentry.abi.reference docs/syscalls.md"
    )


def test_every_call_stands_there_once_with_its_numbers_and_its_reason() -> None:
    lines = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    shown = {cells[0].strip("| `"): cells for cells in lines}
    assert len(shown) == len(lines) == len(syscalls.rows())
    for row in syscalls.rows():
        _, x86_64, aarch64, treatment, _, reason = shown[row.name]
        assert (x86_64, aarch64) == tuple(str(row.numbers.get(arch, "")) for arch in ("x86_64", "aarch64"))
        assert treatment.startswith(row.treatment)
        assert reason.startswith(row.reason)
        assert row.continue_reason in reason


def test_a_reason_is_one_for_one_treatment() -> None:
    treated: dict[str, set[Treatment]] = {}
    for row in syscalls.rows():
        assert len(row.reason.split()) > 1, row.name
        treated.setdefault(row.reason, set()).add(row.treatment)
    assert {reason: each for reason, each in treated.items() if len(each) > 1} == {}


def test_what_a_register_decides_is_shown() -> None:
    text = PAGE.read_text()
    assert "| `sendto` | 44 | 206 | mediate if `addr != 0x0` or `flags & 0x20000000`, else allow |" in text
    assert "| `fcntl` | 72 | 25 | deny EPERM if `cmd = 0x400 0x402 0x410`, else allow |" in text
    assert "mediate or, where the kernel holds reading, if `flags & 0xfff436ff`" in text


def test_a_stale_table_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- from the table: exec -->\nold\n<!-- end -->\nz\n")
    monkeypatch.setattr(sys, "argv", ["reference", str(page)])
    monkeypatch.delitem(sys.modules, "helm_sentry.abi.reference")
    runpy.run_module("helm_sentry.abi.reference", run_name="__main__")
    text = page.read_text()
    assert "| `execve` | 59 | 221 | mediate | `exec` |" in text
    assert "old" not in text


def test_a_class_that_is_none_is_an_error() -> None:
    assert "folder" not in GROUPS
    with pytest.raises(KeyError, match="folder"):
        reference.fill("<!-- from the table: folder -->\n<!-- end -->\n")
