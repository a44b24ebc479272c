"""Means of a design's levels with 95 % intervals over seeds."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import COMBINATION
from reports.plots.base import groups_of, levels, new_figure

TITLE = "Factor levels"
KINDS = ("ablation",)
PLACE = 1
LETTERS = 30
"""Of a level's name in a line."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the ablation table on val accuracy that have a mean, in the design's order."""
    return levels(tables).reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A dot and an interval for each level, one colour for each factor."""
    if data.empty:
        return "No level of the design has a result yet, so there is nothing to compare."
    styles = groups_of(data["factor"])
    labels = [
        _label(factor, str(level), alone=len(styles) == 1)
        for factor, level in zip(data["factor"], data["level"], strict=True)
    ]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = new_figure(max(1.2, 0.65 + (0.12 + 0.12 * lines) * len(data)))
    for place, row in enumerate(data.to_dict("records")):
        colour, marker = styles[row["factor"]]
        if pd.notna(row["low"]):
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(100 * row["mean"], place, marker, color=colour, ms=4)
    axes.set_yticks(range(len(data)), labels)
    axes.set_ylim(len(data) - 0.5, -0.5)
    interval = (
        "95 % interval"
        if data["low"].notna().any()
        else ("one seed: no interval" if data["n"].max() == 1 else "all seeds equal: no interval")
    )
    axes.set_xlabel(f"val accuracy (%)\nmean, {interval}")
    return figure


def _label(factor: str, level: str, *, alone: bool) -> str:
    """Name of a level; a combination names its factors itself."""
    text = level if alone or factor.startswith(COMBINATION) else f"{factor} = {level}"
    return "\n".join(textwrap.wrap(text, LETTERS))
