"""The objective along each searched setting, all others averaged out, with bootstrap bands."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from reports.frames import Frames
from reports.plots.base import (
    GREY,
    INK,
    WIDTH,
    course,
    listed,
    log_axis,
    name_of,
    plain_name,
    shown_values,
)

TITLE = "Marginals: the objective along each setting"
KINDS = ("search",)
PLACE = 6.3
SHOWN = 8
SAID = 3
"""Settings in the sentence."""
ACROSS = 2
MAX_LEVELS = 4
"""Levels that a panel has room for; an axis with more takes a row of its own."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the marginal table for the most important axes, and whether each is_distinct."""
    shares = tables.importance[tables.importance["method"] == "fanova"].head(SHOWN)
    order = {axis: place for place, axis in enumerate(shares["axis"])}
    rows = tables.marginals[tables.marginals["axis"].isin(order)]
    distinct = dict(zip(shares["axis"], shares["is_distinct"], strict=True))
    rows = rows.assign(is_distinct=rows["axis"].map(distinct).astype(bool))
    return rows.sort_values("axis", key=lambda axis: axis.map(order), kind="stable")


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A panel for each setting on a common scale; grey where its importance may be chance."""
    if data.empty:
        return ""
    many = data[data["label"] != ""].groupby("axis", sort=False).size() > MAX_LEVELS
    wide = list(many.index[many])
    small = [name for name in data["axis"].unique() if name not in wide]
    across = max(1, min(ACROSS, len(small)))
    down = len(wide) + -(-len(small) // across)
    figure = Figure(figsize=(WIDTH, 1.45 * down + 0.4 * len(wide)), layout="constrained")
    grid = figure.add_gridspec(down, across)
    places = [grid[row, :] for row in range(len(wide))]
    places += [grid[len(wide) + i // across, i % across] for i in range(len(small))]
    metric = tables.study.objectives[0].metric
    first: Axes | None = None
    for name, place in zip([*wide, *small], places, strict=True):
        # One scale: the height of a curve is what compares settings.
        axes = figure.add_subplot(place, sharey=first)
        first = first or axes
        _panel(axes, data[data["axis"] == name], metric)
        axes.set_xlabel(name, fontsize=7)
        if tables.study.axes[name].get("log"):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=4))
            log_axis(axes.xaxis)
        elif not (data[data["axis"] == name]["label"] != "").all():
            axes.xaxis.set_major_locator(MaxNLocator(3))
        if place.colspan.start == 0:
            axes.set_ylabel(name_of(metric))
        else:
            axes.tick_params(labelleft=False)
    # A diverged trial widens a few bands: these may run out of the panel, no mean may.
    mean, low, high = (shown_values(data[c], metric) for c in ("mean", "low", "high"))
    bottom, top = min(mean.min(), low.quantile(0.1)), max(mean.max(), high.quantile(0.9))
    if first is not None and top > bottom:
        first.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    colour = INK if rows["is_distinct"].iloc[0] else GREY
    mean, low, high = (shown_values(rows[c], metric) for c in ("mean", "low", "high"))
    if (rows["label"] != "").all():
        axes.vlines(rows["value"], low, high, color=colour, lw=1.5)
        axes.plot(rows["value"], mean, "o", color=colour, ms=3.5)
        is_many = len(rows) > 2 * MAX_LEVELS
        axes.set_xticks(rows["value"], rows["label"], rotation=90 if is_many else 30,
                        ha="center" if is_many else "right")  # fmt: skip
        axes.set_xlim(-0.5, len(rows) - 0.5)
    else:
        axes.fill_between(rows["value"], low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(rows["value"], mean, color=colour, lw=1.1)


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """How the objective runs along the settings that are told from chance."""
    metric = plain_name(tables.study.objectives[0].metric)
    maximize = tables.study.objectives[0].maximize
    said = []
    for name, rows in data[data["is_distinct"]].groupby("axis", sort=False):
        if (rows["label"] != "").all():
            place = int(rows["mean"].argmax() if maximize else rows["mean"].argmin())
            said.append(f"is best with {name} = {rows['label'].iloc[place]}")
        else:
            rows = rows.sort_values("value")
            said.append(course(str(name), list(rows["value"]), list(rows["mean"])))
    if not said:
        return "No setting is told from chance."
    return f"With all other settings averaged out, {metric} {listed(said[:SAID])}."
