"""Importance of the searched settings with bootstrap intervals; what may be chance is grey."""

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import COLOURS, GREY, WIDTH

TITLE = "Importance"
KINDS = ("search",)
PLACE = 6
WIDE = True
NAMES = {"fanova": "fANOVA: share of variance", "ped_anova": "PED-ANOVA: share of divergence"}


def prepare(tables: Frames) -> pd.DataFrame:
    """The importance table, largest first."""
    return tables.importance


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A bar with its interval for each setting, a panel for each method."""
    if data.empty:
        return "Importance cannot be told from the trials of this study."
    axes_names = list(data[data["method"] == data["method"].iloc[0]]["axis"])
    figure = Figure(figsize=(2 * WIDTH, 0.75 + 0.22 * len(axes_names)), layout="constrained")
    for axes, (method, label) in zip(
        figure.subplots(1, 2, sharey=True), NAMES.items(), strict=True
    ):
        rows = data[data["method"] == method].set_index("axis").reindex(axes_names)
        colours = [COLOURS[0] if distinct else GREY for distinct in rows["is_distinct"]]
        axes.barh(rows.index, rows["importance"], color=colours, height=0.6)
        for place, row in enumerate(rows.to_dict("records")):
            axes.plot([row["low"], row["high"]], [place, place], color="#444444", lw=1)
        axes.set_xlabel(f"{label}\n({rows['n'].max()} points; grey: not told from chance)")
    figure.axes[0].invert_yaxis()
    return figure
