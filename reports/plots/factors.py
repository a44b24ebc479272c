"""Means of a design's levels, or of a search's methods, with 95 % intervals over replicates."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots.base import COLOURS, Tables, new_figure, sentence

TITLE = "Factor levels"


def prepare(tables: Tables) -> pd.DataFrame:
    """Rows of the ablation table on val accuracy that have a mean, in the design's order."""
    table = tables.ablation
    if table.empty:
        return table
    return table[(table["metric"] == "val_accuracy") & (table["n"] > 0)].reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Tables) -> Figure:
    """A dot and an interval for each level, one colour for each factor."""
    if data.empty:
        return sentence("This study has no design: there are no factor levels to compare.")
    figure, axes = new_figure(max(1.2, 0.5 + 0.28 * len(data)))
    colours = dict(zip(data["factor"].unique(), COLOURS * 8, strict=False))
    several = data["factor"].nunique() > 1
    labels = []
    for place, row in enumerate(data.to_dict("records")):
        colour = colours[row["factor"]]
        if pd.notna(row["low"]):
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(100 * row["mean"], place, "o", color=colour, ms=4)
        labels.append(f"{row['factor']} = {row['level']}" if several else str(row["level"]))
    axes.set_yticks(range(len(data)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("val accuracy (%), mean, 95 % interval")
    return figure
