"""Cost per method or level: time, memory and parameters of completed trials."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import group_column
from reports.plots.base import WIDTH, styles_of

TITLE = "Cost"
KINDS = ("search", "ablation")
PLACE = 9
WIDE = True
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
    height = max(1.3, 0.6 + 0.22 * data["group"].nunique())
    figure = Figure(figsize=(2 * WIDTH, height), layout="constrained")
    for axes, (cost, (label, _)) in zip(
        figure.subplots(1, len(COSTS), sharey=True), COSTS.items(), strict=True
    ):
        rows = data[data["cost"] == cost]
        colours = [styles[name][0] for name in rows["group"]]
        axes.barh(rows["group"], rows["median"], color=colours, height=0.6)
        for row in rows.to_dict("records"):
            axes.plot([row["low"], row["high"]], [row["group"]] * 2, color="#444444", lw=1)
        axes.set_xlabel(f"{label}, median")
    return figure
