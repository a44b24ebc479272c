"""How often predictions are right, by the probability that the model gives them."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import GREY, WIDTH, styles_of
from reports.samples.measures import NUM_BINS, calibration

TITLE = "How often a prediction on test is right, by its probability"
KINDS = ("search", "ablation")
PLACE = 41
MOST_LINES = 6
"""The best trials by val of so many methods or levels."""
_FEWEST = 5
"""Images of a bin that is shown: of fewer the share says nothing."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Of the data set with most trials, the bins of the best trial of each method or level."""
    if not tables.samples.by_data:
        return pd.DataFrame(columns=["group", "count", "confidence", "accuracy"])
    best = tables.samples.by_data[0].best[:MOST_LINES]
    return pd.concat(
        [calibration(one.test).bins.assign(group=one.group) for one in best], ignore_index=True
    )


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """On which side of the diagonal the best trial is."""
    best = tables.samples.by_data[0].best[0]
    found = calibration(best.test)
    gap = 100 * (found.confidence - best.test.accuracy)
    side = "Below the diagonal it is surer than it is right" if gap > 0 else (
        "Above the diagonal it is right more often than it says"
    )  # fmt: skip
    return f"{side}: {best.name} by {abs(gap):.1f} points on average, ECE {found.error:.3f}."


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """Lines over the diagonal of perfect calibration; below, where the images are."""
    if data.empty:
        return ""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 100], [0, 100], color=GREY, lw=1, ls="--")
    styles = styles_of(tables)
    for group, rows in data.groupby("group", sort=False):
        colour, marker = styles[str(group)]
        shown = rows[rows["count"] >= _FEWEST]
        axes.plot(100 * shown["confidence"], 100 * shown["accuracy"], color=colour, marker=marker,
                  ms=3.5, lw=1, label=str(group) or None)  # fmt: skip
        edges = np.linspace(0, 100, NUM_BINS + 1)
        middles = 50 * (rows["low"] + rows["high"])
        below.hist(middles, edges, weights=rows["count"], histtype="step", color=colour, lw=1)
    axes.set_ylabel("right (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    below.set_ylabel("images")
    below.set_xlabel("probability of the predicted class (%)")
    if data["group"].any():
        axes.legend(loc="best")
    return figure
