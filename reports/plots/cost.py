"""Cost per method or level: time, memory and parameters of completed trials."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.frames import Frames
from reports.labels import group_column
from reports.plots.base import WIDTH, spoken, styles_of, wrapped

TITLE = "Cost"
KINDS = ("search", "ablation")
PLACE = 9
LETTERS = 26
"""Of a group's name in a line."""
COSTS = {
    "duration_s": ("training time (s)", 1.0),
    "peak_memory_bytes": ("peak memory (GB)", 1e-9),
    "num_trainable_no_head": ("parameters without head", 1.0),
}


def prepare(tables: Frames) -> pd.DataFrame:
    """Columns group, cost, low, median, high (quartiles), over used trials."""
    used = tables.used
    rows = []
    parts = dict(list(used.groupby(group_column(used))))
    for name in (name for name in styles_of(tables) if name in parts):
        part = parts[name]
        for cost, (_, unit) in COSTS.items():
            values = part[cost].dropna().to_numpy(float) * unit
            if len(values):
                # Quartiles, since times of trials that shared a device are skewed.
                low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
                rows.append((name, cost, low, median, high))
    return pd.DataFrame(rows, columns=["group", "cost", "low", "median", "high"])


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A bar at the median with the quartiles, for each method or level and cost."""
    if data.empty:
        return "No trial has completed, so there is no cost to show."
    styles = styles_of(tables)
    costs = [cost for cost in COSTS if data.loc[data["cost"] == cost, "high"].gt(0).any()]
    if not costs:
        return "No trial has recorded what it cost."
    names = {name: wrapped(name, LETTERS) for name in data["group"].unique()}
    height = 0.6 + sum(0.08 + 0.12 * (name.count("\n") + 1) for name in names.values())
    figure = Figure(figsize=(WIDTH, height * len(costs)), layout="constrained")
    for axes, cost in zip(figure.subplots(len(costs), 1, squeeze=False).flat, costs, strict=True):
        rows = data[data["cost"] == cost]
        colours = [styles[name][0] for name in rows["group"]]
        axes.barh(rows["group"].map(names), rows["median"], color=colours, height=0.6)
        for row in rows.to_dict("records"):
            axes.plot([row["low"], row["high"]], [names[row["group"]]] * 2, color="#444444", lw=1)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"{COSTS[cost][0]}\n(median, quartiles)")
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Who trains fastest and slowest."""
    rows = data[data["cost"] == "duration_s"].sort_values("median", kind="stable")
    if rows.empty:
        return ""
    first, last = rows.iloc[0], rows.iloc[-1]
    name = spoken(first["group"], tables) or "A trial"
    said = f"{name} trains in {first['median']:.3g} s in the median"
    if len(rows) == 1:
        return f"{said}."
    if f"{first['median']:.3g}" == f"{last['median']:.3g}":
        return f"All take about as long: {first['median']:.3g} s in the median."
    return f"{said}, {spoken(last['group'], tables)}, the slowest, in {last['median']:.3g} s."
