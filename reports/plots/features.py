"""t-SNE of the features that the head reads."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.plots._inspected import Array, Inspections, wrapped
from reports.plots.base import COLOURS, GREY, MARKERS

TITLE = "Features"
KINDS = ("inspection",)
PLACE = 4
MIN_IMAGES = 6
"""With fewer, t-SNE says nothing."""
CLASSES = 10
"""Classes shown at most: the first ones."""


def prepare(trials: Inspections) -> pd.DataFrame:
    """Columns label, class, x, y of each image; no rows where a trial has too few images."""
    parts = [pd.DataFrame(columns=["label", "class", "x", "y"])]
    if _fewest(trials) >= MIN_IMAGES:
        parts = []
        for label, found in trials.items():
            places = embedded(found["features"])
            classes = found["labels"].astype(int)
            about = {"label": label, "class": classes, "x": places[:, 0], "y": places[:, 1]}
            parts.append(pd.DataFrame(about))
    return pd.concat(parts, ignore_index=True)


def draw(data: pd.DataFrame, trials: Inspections) -> Figure | str:
    """A panel for each trial, colour and marker by class."""
    if data.empty:
        return f"t-SNE of the features needs {MIN_IMAGES} images, there are {_fewest(trials)}."
    across = min(4, len(trials))
    down = -(-len(trials) // across)
    figure = Figure(figsize=(1.8 * across, 2.0 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (label, rows) in zip(panels, data.groupby("label", sort=False), strict=False):
        for one, points in list(rows.groupby("class"))[:CLASSES]:
            place = int(str(one))
            axes.scatter(
                points["x"],
                points["y"],
                s=9,
                lw=0,
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
                label=str(place),
            )
        axes.set_title(wrapped(str(label)))
        _hide_scale(axes)
    for axes in panels[len(trials) :]:
        axes.remove()
    handles, classes = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, classes, loc="outside lower center", ncols=CLASSES, title="class",
                  handletextpad=0, columnspacing=0.6)  # fmt: skip
    return figure


def embedded(features: Array) -> Array:
    """Features (N, F) in the plane (N, 2); the same numbers give the same picture.

    Source:
        L. van der Maaten, G. Hinton: "Visualizing data using t-SNE", JMLR 9 (2008).
    """
    # as slow to load as all other figures together, and a study's report does not need it
    from sklearn.manifold import TSNE

    # t-SNE refuses a perplexity that is not below the number of points.
    perplexity = min(30.0, (len(features) - 1) / 3)
    if np.ptp(features, axis=0).max() == 0:  # its initial PCA would divide by a variance of 0
        return np.zeros((len(features), 2))
    found: Array = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(
        features.astype(np.float64)
    )
    return found


def _fewest(trials: Inspections) -> int:
    return min(len(found["features"]) for found in trials.values())


def _hide_scale(axes: Axes) -> None:
    """Distances of t-SNE have no unit."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(GREY)
