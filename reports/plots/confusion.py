"""What the best trial took the test images of each class for: a matrix, or of many classes the
pairs that were mistaken most often."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import COLOURS, GREY, WIDTH, new_figure
from reports.samples.measures import confused_pairs, confusion

TITLE = "What test images were taken for"
KINDS = ("search", "ablation")
PLACE = 40
MOST_CLASSES = 15
"""Of a matrix that can be read at column width."""
MOST_PAIRS = 20
_NAME_LENGTH = 18
"""Letters of a class that are shown."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Of the data set with most trials, pairs of classes: `label`, `predicted`, `count`, `of`."""
    columns = ["label", "predicted", "count", "of"]
    if not tables.samples.by_data:
        return pd.DataFrame(columns=columns)
    data = tables.samples.by_data[0]
    best, names = data.best[0], data.class_names
    if len(names) > MOST_CLASSES:
        return confused_pairs(best, MOST_PAIRS)
    counts = confusion(best.test, len(names))
    rows = [
        (label, predicted, int(counts[i, j]), int(counts[i].sum()))
        for i, label in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return pd.DataFrame(rows, columns=columns)


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Whose it is, and what stands out."""
    best = tables.samples.by_data[0].best[0]
    wrong = data[data["label"] != data["predicted"]].sort_values(
        "count", ascending=False, kind="stable"
    )
    if wrong.empty or not wrong.iloc[0]["count"]:
        return f"Of {best.name}: every test image is right."
    most = wrong.iloc[0]
    return (
        f"Of {best.name}: {most['label']} is taken for {most['predicted']} most often, "
        f"{most['count']} times of {most['of']}."
    )


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A matrix, rows are labels; or a bar for each pair, as a share of the label's images."""
    if data.empty:
        return ""
    shares = (data["count"] / data["of"].clip(lower=1)).to_numpy(float)
    size = len(tables.samples.by_data[0].class_names)
    if size > MOST_CLASSES:
        return _bars(data, shares)
    figure, axes = new_figure(WIDTH * 0.95)
    axes.imshow(shares.reshape(size, size), cmap="Blues", vmin=0, vmax=1)
    numbers = data["count"].to_numpy().reshape(size, size)
    for i in range(size):
        for j in range(size):
            if numbers[i, j]:
                colour = "white" if shares[i * size + j] > 0.55 else "black"
                axes.text(j, i, str(numbers[i, j]), ha="center", va="center", color=colour,
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


def _bars(data: pd.DataFrame, shares: np.ndarray) -> Figure:
    figure, axes = new_figure(0.6 + 0.16 * len(data))
    places = range(len(data))
    axes.barh(places, 100 * shares, color=COLOURS[0], height=0.7)
    labels = [
        f"{_short(a)} → {_short(b)}" for a, b in zip(data["label"], data["predicted"], strict=True)
    ]
    axes.set_yticks(places, labels)
    for place, (count, of) in enumerate(zip(data["count"], data["of"], strict=True)):
        axes.text(100 * shares[place], place, f" {count}/{of}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", color=GREY, lw=0.4)
    axes.set_axisbelow(True)
    axes.margins(x=0.18)
    axes.set_xlabel("% of the label's test images")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
