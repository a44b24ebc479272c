"""What is shared by figures of what one class was taken for: a matrix, or bars of many classes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.plots.base import COLOURS, GREY, WIDTH, new_figure

MOST_CLASSES = 15
"""Of a matrix that can be read at column width."""
MOST_PAIRS = 20
_NAME_LENGTH = 18
"""Letters of a class that are shown."""


def shares_of(data: pd.DataFrame) -> np.ndarray:
    """What part of its class each row of `label`, `predicted`, `count`, `of` is."""
    found: np.ndarray = (data["count"] / data["of"].clip(lower=1)).to_numpy(float)
    return found


def matrix(data: pd.DataFrame, texts: Sequence[str]) -> Figure:
    """Rows are labels, columns what they were taken for.

    Args:
        data: All pairs of classes, row by row.
        texts: What stands in the cells, in the same order.
    """
    shares = shares_of(data)
    size = data["label"].nunique()
    figure, axes = new_figure(WIDTH * 0.95)
    axes.imshow(shares.reshape(size, size), cmap="Blues", vmin=0, vmax=1)
    for place, text in enumerate(texts):
        if text:
            colour = "white" if shares[place] > 0.55 else "black"
            axes.text(place % size, place // size, text, ha="center", va="center", color=colour,
                      fontsize=7)  # fmt: skip
    names = [_short(name) for name in data["label"].drop_duplicates()]
    longest = max(map(len, names))
    axes.set_xticks(range(size), names, rotation=90 if longest > 2 else 0)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    return figure


def bars(data: pd.DataFrame, texts: Sequence[str], axis: str) -> Figure:
    """A bar for each pair of classes, as a share of the label's.

    Args:
        texts: What stands behind the bars.
        axis: What is shared, as "% of the label's test images".
    """
    shares = shares_of(data)
    figure, axes = new_figure(0.6 + 0.16 * len(data))
    places = range(len(data))
    axes.barh(places, 100 * shares, color=COLOURS[0], height=0.7)
    labels = [
        f"{_short(a)} → {_short(b)}" for a, b in zip(data["label"], data["predicted"], strict=True)
    ]
    axes.set_yticks(places, labels)
    for place, text in enumerate(texts):
        axes.text(100 * shares[place], place, f" {text}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", color=GREY, lw=0.4)
    axes.set_axisbelow(True)
    axes.margins(x=0.18)
    axes.set_xlabel(axis)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
