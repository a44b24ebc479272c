"""The objective along each searched setting, all others averaged out, with bootstrap bands."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import COLOURS, GREY, WIDTH, log_axis, name_of, shown_values

TITLE = "Marginals: the objective along each setting"
KINDS = ("search",)
PLACE = 6.3
WIDE = True
SHOWN = 8
ACROSS = 4


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the marginal table for the most important axes, and whether each is_distinct."""
    shares = tables.importance[tables.importance["method"] == "fanova"].head(SHOWN)
    order = {axis: place for place, axis in enumerate(shares["axis"])}
    rows = tables.marginals[tables.marginals["axis"].isin(order)]
    distinct = dict(zip(shares["axis"], shares["is_distinct"], strict=True))
    rows = rows.assign(is_distinct=rows["axis"].map(distinct).astype(bool))
    return rows.sort_values("axis", key=lambda axis: axis.map(order), kind="stable")


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A panel for each setting on a common scale; grey where it is not told from chance."""
    if data.empty:
        return ""
    names = list(data["axis"].unique())
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(2 * WIDTH * across / ACROSS, 1.5 * down + 0.2), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    metric = tables.study.objectives[0].metric
    for axes, name in zip(panels.flat, names):  # noqa: B905
        _panel(axes, data[data["axis"] == name], metric)
        axes.set_xlabel(name)
        if tables.study.axes[name].get("log"):
            axes.set_xscale("log")
            log_axis(axes.xaxis)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(name_of(metric))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    colour = COLOURS[0] if rows["is_distinct"].iloc[0] else GREY
    mean, low, high = (shown_values(rows[c], metric) for c in ("mean", "low", "high"))
    if (rows["label"] != "").all():
        axes.vlines(rows["value"], low, high, color=colour, lw=1.5)
        axes.plot(rows["value"], mean, "o", color=colour, ms=3.5)
        axes.set_xticks(rows["value"], rows["label"], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(rows) - 0.5)
    else:
        axes.fill_between(rows["value"], low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(rows["value"], mean, color=colour, lw=1.1)
