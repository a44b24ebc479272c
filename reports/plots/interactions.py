"""The largest interactions: the objective over two settings, all others averaged out."""

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import WIDTH, log_axis, name_of, plain_name
from tcpa_core.record.scores import is_share

TITLE = "Pairs of settings"
KINDS = ("search",)
PLACE = 6.6
MANY = 8
"""Names from which on they stand upright."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the interaction table whose surface is kept, largest first."""
    return tables.interactions[tables.interactions["grid"].notna()].reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A surface for each pair; its title says what the pair explains beyond each setting alone."""
    if data.empty:
        return ""
    metric = tables.study.objectives[0].metric
    scale = 100.0 if is_share(metric) else 1.0
    figure = Figure(figsize=(WIDTH, 2.35 * len(data)), layout="constrained")
    panels = figure.subplots(len(data), 1, squeeze=False)[:, 0]
    for axes, row in zip(panels, data.to_dict("records"), strict=True):
        grid = json.loads(row["grid"])
        x, y = np.array(grid["x"]), np.array(grid["y"])
        logs = {a: bool(tables.study.axes[a].get("log")) for a in (row["axis"], row["other"])}
        _setup(axes.xaxis, x, grid["x_labels"], logs[row["axis"]], axes)
        _setup(axes.yaxis, y, grid["y_labels"], logs[row["other"]], axes)
        image = axes.pcolormesh(x, y, scale * np.array(grid["mean"]).T, cmap="viridis",
                                shading="nearest", rasterized=True)  # fmt: skip
        figure.colorbar(image, ax=axes, label=name_of(metric), aspect=25)
        chance = "" if row["is_distinct"] else ", not told from chance"
        share = f"{100 * row['importance']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        axes.set_xlabel(row["axis"])
        axes.set_title(f"{share}{chance}", loc="left")
        axes.set_ylabel(row["other"])
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """What the largest pair explains, and where it is best."""
    row, objective = data.iloc[0], tables.study.objectives[0]
    if not row["is_distinct"]:
        return "No pair of settings is told from chance: each setting may be read alone."
    grid = json.loads(row["grid"])
    mean = objective.sign * np.array(grid["mean"], float)
    i, j = np.unravel_index(np.nanargmax(mean), mean.shape)
    x, y = _named(grid, "x", int(i)), _named(grid, "y", int(j))
    return (
        f"{row['axis']} and {row['other']} explain {100 * row['importance']:.1f} % of the variance "
        f"together that neither explains alone; {plain_name(objective.metric)} is best at "
        f"{row['axis']} {x} with {row['other']} {y}."
    )


def _named(grid: dict[str, Any], which: str, place: int) -> str:
    return str(grid[f"{which}_labels"][place]) or f"{grid[which][place]:.3g}"


def _setup(axis: Axis, values: Any, labels: list[str], log: bool, axes: Axes) -> None:
    """Words as ticks, logarithms as such."""
    if all(labels):
        axis.set_ticks(values, labels)
        if axis is axes.xaxis:
            axes.tick_params("x", rotation=90 if len(labels) > MANY else 30)
    elif log:
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        log_axis(axis)
