"""Importance of the searched settings with bootstrap intervals; those not told from chance grey."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots.base import COLOURS, Tables, new_figure, sentence

TITLE = "Importance"


def prepare(tables: Tables) -> pd.DataFrame:
    """The importance table, largest first."""
    return tables.importance


def draw(data: pd.DataFrame, tables: Tables) -> Figure:
    """A bar with its interval for each setting."""
    if data.empty:
        return sentence("Importance cannot be told from the trials of this study.")
    figure, axes = new_figure(max(1.2, 0.5 + 0.25 * len(data)))
    colours = [COLOURS[0] if distinct else "#BBBBBB" for distinct in data["is_distinct"]]
    axes.barh(data["axis"], data["importance"], color=colours, height=0.6)
    for place, row in enumerate(data.to_dict("records")):
        axes.plot([row["low"], row["high"]], [place, place], color="#444444", lw=1)
    axes.invert_yaxis()
    axes.set_xlabel("share of variance (grey: not told from chance)")
    return figure
