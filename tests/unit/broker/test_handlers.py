"""The table and the broker agree on what is mediated and what may be continued."""

import ast
import re
from pathlib import Path

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.syscalls import Treatment
from helm_sentry.broker import broker

BROKER = Path(broker.__file__).parent
MEDIATED = {row.name for row in syscalls.rows() if row.treatment is Treatment.MEDIATE}


def test_every_mediated_row_has_a_handler() -> None:
    assert set(broker.HANDLERS) == MEDIATED


@pytest.mark.parametrize("row", [row for row in syscalls.rows() if row.continue_reason], ids=lambda row: row.name)
def test_a_reason_to_continue_is_a_sentence_about_a_mediated_row(row: syscalls.Row) -> None:
    assert row.treatment is Treatment.MEDIATE
    assert len(row.continue_reason.split()) >= 4


def test_a_row_without_a_reason_is_never_continued() -> None:
    """The one place that continues for handlers asks the table first; the others verify what happened."""
    source = ast.parse((BROKER / "broker.py").read_text())
    guard = next(
        node for node in ast.walk(source) if isinstance(node, ast.FunctionDef) and node.name == "_may_continue"
    )
    assert "continue_reason" in ast.unparse(guard)
    for row in syscalls.rows():
        assert broker._may_continue(row) == (bool(row.continue_reason) or row.treatment is Treatment.DENY)


def test_handlers_that_continue_are_in_modules_whose_rows_have_reasons() -> None:
    reasons = {row.name for row in syscalls.rows() if row.continue_reason}
    for name, handler in broker.HANDLERS.items():
        module = handler.__module__.rpartition(".")[2]
        source = ast.parse(Path(BROKER / f"{module}.py").read_text())
        function = next(
            node for node in ast.walk(source) if isinstance(node, ast.FunctionDef) and node.name == handler.__name__
        )
        if "Continue()" in ast.unparse(function):
            assert name in reasons, name


def test_only_known_places_continue_a_call_themselves() -> None:
    """Those that verify afterwards watch the call; each serves rows that say why they may be continued."""
    serves = {"seizure": ("execve", "execveat", "chdir", "open", "openat")}
    found = {path.stem for path in BROKER.glob("*.py") if re.search(r"\.(send_continue|proceed)\(", path.read_text())}
    assert found == {"action", *serves}
    reasons = {row.name for row in syscalls.rows() if row.continue_reason}
    assert {name for names in serves.values() for name in names} <= reasons
