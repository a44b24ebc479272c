"""The largest interactions: the objective over two settings, all others averaged out."""

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import WIDTH, log_axis, name_of

TITLE = "Pairs of settings"
KINDS = ("search",)
PLACE = 6.6
WIDE = True


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the interaction table whose surface is kept, largest first."""
    return tables.interactions[tables.interactions["grid"].notna()].reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A surface for each pair; its title says what the pair explains beyond each setting alone."""
    if data.empty:
        return ""
    metric = tables.study.objectives[0].metric
    scale = 100.0 if metric.endswith("accuracy") else 1.0
    figure = Figure(figsize=(2 * WIDTH, 2.3), layout="constrained")
    # Always three places, so that one surface alone is not drawn huge.
    panels = figure.subplots(1, 3, squeeze=False)[0]  # one or two are as large as three
    for axes, row in zip(panels, data.to_dict("records")):  # noqa: B905
        grid = json.loads(row["grid"])
        x, y = np.array(grid["x"]), np.array(grid["y"])
        logs = {a: bool(tables.study.axes[a].get("log")) for a in (row["axis"], row["other"])}
        _setup(axes.xaxis, x, grid["x_labels"], logs[row["axis"]], axes)
        _setup(axes.yaxis, y, grid["y_labels"], logs[row["other"]], axes)
        image = axes.pcolormesh(x, y, scale * np.array(grid["mean"]).T, cmap="viridis",
                                shading="nearest", rasterized=True)  # fmt: skip
        figure.colorbar(image, ax=axes, location="top", label=name_of(metric), aspect=30)
        chance = "" if row["is_distinct"] else "\nnot told from chance"
        share = f"{100 * row['importance']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        axes.set_xlabel(f"{row['axis']}\n\n{share}{chance}")
        axes.set_ylabel(row["other"])
    for axes in panels[len(data) :]:
        axes.remove()
    return figure


def _setup(axis: Axis, values: Any, labels: list[str], log: bool, axes: Axes) -> None:
    """Words as ticks, logarithms as such."""
    if all(labels):
        axis.set_ticks(values, labels)
        if axis is axes.xaxis:
            axes.tick_params("x", rotation=30)
    elif log:
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        log_axis(axis)
