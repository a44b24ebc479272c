"""Importance of the searched settings with bootstrap intervals; what may be chance is grey."""

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import GREY, INK, WIDTH

TITLE = "Importance"
KINDS = ("search",)
PLACE = 6
NAMES = {"fanova": "fANOVA: share of variance", "ped_anova": "PED-ANOVA: share of divergence"}


def prepare(tables: Frames) -> pd.DataFrame:
    """The importance table, largest first."""
    return tables.importance


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A bar with its interval for each setting, a panel for each method."""
    if data.empty:
        return "Importance cannot be told from the trials of this study."
    names = list(data[data["method"] == data["method"].iloc[0]]["axis"])
    figure = Figure(figsize=(WIDTH, 2 * (0.55 + 0.17 * len(names))), layout="constrained")
    for axes, (method, label) in zip(figure.subplots(2, 1), NAMES.items(), strict=True):
        rows = data[data["method"] == method].set_index("axis").reindex(names)
        colours = [INK if distinct else GREY for distinct in rows["is_distinct"]]
        axes.barh(rows.index, rows["importance"], color=colours, height=0.6)
        for place, row in enumerate(rows.to_dict("records")):
            axes.plot([row["low"], row["high"]], [place, place], color="#000000", lw=0.8)
        axes.set_xlabel(f"{label}\n({rows['n'].max()} points; grey: not told from chance)")
        axes.invert_yaxis()
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Which setting explains most, and how many cannot be told from chance."""
    rows = data[data["method"] == "fanova"]
    first, doubtful = rows.iloc[0], int((~rows["is_distinct"].astype(bool)).sum())
    if doubtful == len(rows):
        return f"None of the {len(rows)} settings can be told from chance."
    share = (
        f"{100 * first['importance']:.0f} % [{100 * first['low']:.0f}, {100 * first['high']:.0f}]"
    )
    rest = f"; {doubtful} of {len(rows)} settings cannot be told from chance" if doubtful else ""
    return f"{first['axis']} explains most of the variance, {share}{rest}."
