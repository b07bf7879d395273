"""One bar a side for each question, as SVG or PNG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from harness import Row

matplotlib.use("Agg")

from matplotlib import pyplot


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the medians, one panel a question."""
    questions = list(dict.fromkeys((row.question, row.unit) for row in rows))
    height = sum(1 for _ in rows) * 0.3 + len(questions) * 0.7
    figure, panels = pyplot.subplots(
        len(questions),
        1,
        figsize=(9, height),
        squeeze=False,
        gridspec_kw={"height_ratios": [1 + sum(row.question == question for row in rows) for question, _ in questions]},
    )
    for (question, unit), panel in zip(questions, panels[:, 0], strict=True):
        mine = [row for row in rows if row.question == question][::-1]
        bars = panel.barh([row.side for row in mine], [row.figures[0] for row in mine], color="#4c72b0")
        panel.bar_label(bars, [f"{row.figures[0]:,.1f}" for row in mine], padding=3, fontsize=8)
        panel.set_title(f"{question}, {unit}", loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path)
