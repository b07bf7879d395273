"""The board: what came of each act, in 80 columns of plain text. Pure; the caller may colour it."""

import os
import textwrap
from collections.abc import Iterator, Sequence

from helm_sentry.demo.findings import OWN, RUN, Finding
from helm_sentry.demo.performance import Outcome

WIDTH = 80
_HEADER = ("act", "target", "expected", "agent", "record", "rule", "receipt")
_WIDTHS = (11, 20, 8, 7, 6, 13, 7)
_WRONG = " <"
_RECEIPTS = {OWN: "yes", RUN: "yes/run", "": "NO"}
_LABEL = 10

Line = tuple[str, bool]
"""A line, and whether it is good news."""


def rows(found: Sequence[Finding]) -> list[Line]:
    """Return the table, its header first."""
    return [(_line(_HEADER), True), ("-" * WIDTH, True), *((_row(one), one.good) for one in found)]


def closing(outcome: Outcome, home: str) -> list[Line]:
    """Return the lines below the table.

    Args:
        outcome: what the performance came to.
        home: the user's home directory, which is shortened to `~`.
    """
    place = outcome.evidence.directory
    if place.startswith(home + os.sep):
        place = "~" + place[len(home) :]
    held = dict.fromkeys(layer.removesuffix(" (tcp)") for layer in outcome.layers)
    return [
        *_verification(outcome),
        *_labelled("held by", ", ".join(held) or "nothing: the run has no plan", bool(held)),
        ("log".ljust(_LABEL) + place, True),  # in one piece, to be copied
        *_labelled("check it", f"helm-sentry verify {outcome.evidence.run}", True),
        ("", True),
        *((line, outcome.good) for line in textwrap.wrap(_verdict(outcome), WIDTH)),
    ]


def _verification(outcome: Outcome) -> Iterator[Line]:
    report = outcome.evidence.report
    if report is None:
        yield from _labelled("verified", f"NO: {outcome.evidence.fault}", False)
        return
    found = f"{report.records:,} records, chained and sealed; {report.receipts:,} denials, each with a receipt"
    yield from _labelled("verified", found, True)
    yield from _labelled("signed by", f"key {report.key} of this machine (yes/run: the run's own receipt)", True)


def _labelled(label: str, text: str, good: bool) -> Iterator[Line]:
    for line in textwrap.wrap(label.ljust(_LABEL) + text, WIDTH, subsequent_indent=" " * _LABEL):
        yield line, good


def _row(found: Finding) -> str:
    cells = (
        found.act.title,
        found.target,
        str(found.act.expected),
        found.agent,
        str(found.sequence) if found.sequence >= 0 else "none",
        found.rule or "none",
        _RECEIPTS[found.receipt],
    )
    return _line(cells) + ("" if found.good else _WRONG)


def _line(cells: Sequence[str]) -> str:
    fitted = (_fit(cell, width).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return " ".join(fitted).rstrip()


def _fit(text: str, width: int) -> str:
    """Shorten a text; the end of a path or an address says more than its beginning."""
    return text if len(text) <= width else ".." + text[2 - width :]


def _verdict(outcome: Outcome) -> str:
    wrong = [found.act.title for found in outcome.findings if not found.good]
    if outcome.good:
        return "Everything was as expected."
    if wrong:
        return f"NOT as expected: {', '.join(wrong)}."
    return f"NOT as expected: the run ended with status {outcome.status} or does not verify."
