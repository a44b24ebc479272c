"""Attention that the mask leaves, and effective rank, along the blocks."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots._inspected import Inspections, along_blocks, draw_along_blocks, legend, ticks
from reports.plots.base import WIDTH

TITLE = "Kept attention and rank"
KINDS = ("inspection",)
PLACE = 6
AXES = {"kept_cls": "attention that the\nCLS token keeps (%)",
        "kept_image": "attention that the\nimage tokens keep (%)",
        "rank": "effective rank"}  # fmt: skip


def prepare(trials: Inspections) -> pd.DataFrame:
    """Columns label, number, block, value: kept attention in percent, and the rank."""
    return along_blocks(trials, {"kept_cls": 100, "kept_image": 100, "rank": 1})


def draw(data: pd.DataFrame, trials: Inspections) -> Figure | str:
    """A panel for each number that a trial has, a line for each trial."""
    shown = [name for name in AXES if (data["number"] == name).any()]
    figure = Figure(figsize=(2 * WIDTH, 2.1), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        draw_along_blocks(axes, data[data["number"] == name], list(trials))
        axes.set_xticks(ticks(data["block"].max()))
        axes.set_ylabel(AXES[name])
        if name != "rank":
            # Without a mask all lines lie at 100 %; an axis around that point would show rounding
            # errors.
            axes.set_ylim(min(90.0, axes.get_ylim()[0]), 102)
    legend(figure)
    return figure
