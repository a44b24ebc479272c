"""What the figures of inspected trials share: names of roles and pools, lines, legends, labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.plots.base import COLOURS, MARKERS, WIDTH

Array = np.ndarray[Any, Any]
Inspections = Mapping[str, Mapping[str, Array]]
"""What `tcpa_core.inspection.inspect_trial` found in each trial, by its label in the figures, such
as "vpt" or "vfpt + tcpa"."""

ROLES = {"cls": "CLS token", "image": "image tokens"}
POOLS = {"cls": "CLS pool", "image": "image pool", "shared": "shared pool"}


def along_blocks(trials: Inspections, numbers: Mapping[str, float]) -> pd.DataFrame:
    """Columns label, number, block, value of what was found in each block.

    Args:
        numbers: Names of these numbers, each with what it is multiplied by.
    """
    rows = [
        (label, name, block, value)
        for name, scale in numbers.items()
        for label, found in trials.items()
        if name in found
        for block, value in enumerate(scale * found[name], start=1)
    ]
    return pd.DataFrame(rows, columns=["label", "number", "block", "value"])


def draw_along_blocks(axes: Axes, data: pd.DataFrame, labels: Sequence[str]) -> None:
    """A line for each trial that has the number; colours follow the order of all trials."""
    for place, label in enumerate(labels):
        rows = data[data["label"] == label]
        if len(rows):
            line(axes, rows["block"], rows["value"], place, label)
    axes.set_xlabel("block")


def line(axes: Axes, x: pd.Series, y: pd.Series, place: int, label: str) -> None:
    """A line with the colour and the marker of its place."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot(x, y, color=colour, marker=marker, ms=3, lw=1, label=label)


def share_panels(roles: Sequence[str]) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each role, from 0 to 100 % of its attention."""
    figure = Figure(figsize=(WIDTH * len(roles), 2.2), layout="constrained")
    panels = dict(zip(roles, figure.subplots(1, len(roles), squeeze=False)[0], strict=True))
    for role, axes in panels.items():
        axes.set_ylim(-3, 103)
        axes.set_ylabel(f"attention of {ROLES[role]}\non prompts (%)")
    return figure, panels


def legend(figure: Figure) -> None:
    """One legend above all panels; the figure grows by its lines."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = max(1, min(4, int(9 * figure.get_figwidth() / (longest + 6))))
    lines = -(-len(labels) // columns)
    # The panels keep their height; constrained layout would squeeze them.
    figure.set_figheight(figure.get_figheight() + 0.15 * (lines - 1))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def ticks(count: int) -> Sequence[int]:
    """About six whole numbers from 1 on."""
    step = max(1, -(-count // 6))
    return range(1, count + 1, step)


def wrapped(label: str) -> str:
    """A label in lines, so that it stands above a small panel."""
    return label.replace(", ", "\n").replace(" + ", " +\n") if len(label) > 12 else label
