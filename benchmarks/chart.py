"""Bars for each question, as SVG: one a side, as long as its median."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from harness import OURS, Row

WIDTH, LEFT, RIGHT, BAR, GAP, TITLE = 760, 250, 90, 16, 5, 30
STYLE = (
    "text{font:12px sans-serif;fill:#555}.question{font-weight:bold}.side{text-anchor:end}"
    "rect{fill:#9aa7b5}.ours{fill:#2f6fab}"
)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the chart of these rows."""
    top, shapes = 0, []
    for question, unit in dict.fromkeys((row.question, row.unit) for row in rows):
        mine = [row for row in rows if (row.question, row.unit) == (question, unit)]
        shapes += list(_panel(f"{question}, {unit}", mine, top))
        top += TITLE + len(mine) * (BAR + GAP)
    size = f'width="{WIDTH}" height="{top + GAP}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    path.write_text("\n".join([head, *shapes, "</svg>\n"]))


def _panel(title: str, rows: Sequence[Row], top: int) -> Iterator[str]:
    yield f'<text class="question" x="0" y="{top + TITLE - 10}">{escape(title)}</text>'
    most = max(row.figures[0] for row in rows) or 1.0
    for at, row in enumerate(rows):
        y, figure = top + TITLE + at * (BAR + GAP), row.figures[0]
        length = max(1, round((WIDTH - LEFT - RIGHT) * figure / most))
        kind = ' class="ours"' if row.side.startswith(OURS) else ""
        yield f'<text class="side" x="{LEFT - 8}" y="{y + 12}">{escape(row.side)}</text>'
        yield f'<rect{kind} x="{LEFT}" y="{y}" width="{length}" height="{BAR}"/>'
        yield f'<text x="{LEFT + length + 6}" y="{y + 12}">{figure:,.{1 if figure < 1000 else 0}f}</text>'
