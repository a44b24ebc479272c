"""Interactions of a factorial design's factors with 95 % intervals over seeds."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import heading, on_val, pair_name
from reports.plots.base import GREY, INK, new_figure
from reports.statistics.paired_tests import ERROR

TITLE = "Interactions of factors"
KINDS = ("ablation",)
PLACE = 1.5
SHOWN = 30
LETTERS = 40
"""Of a pair's name in a line."""


def prepare(tables: Frames) -> pd.DataFrame:
    """The largest interactions on val, largest first."""
    rows = on_val(tables.effects)
    rows = rows[rows["effect"].notna()]
    return rows.sort_values("effect", key=lambda e: -e.abs(), kind="stable").head(SHOWN)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A dot and an interval for each pair; grey where it may be 0 by Holm's p."""
    if data.empty:
        return ""
    # A pair of factors with more than two levels has several rows; then levels are named.
    several = bool(data.duplicated(["dataset", "factor", "other"]).any())
    names = [
        heading(pair_name(row, with_levels=several), str(row["dataset"]))
        for row in data.to_dict("records")
    ]
    names = ["\n".join(textwrap.wrap(name, LETTERS)) for name in names]
    lines = max(name.count("\n") + 1 for name in names)
    figure, axes = new_figure(0.9 + (0.12 + 0.12 * lines) * len(data))
    axes.axvline(0, color="#888888", lw=0.6)
    for place, row in enumerate(data.to_dict("records")):
        is_distinct = pd.notna(row["p_holm"]) and row["p_holm"] < ERROR
        colour = INK if is_distinct else GREY
        if pd.notna(row["low"]):
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(100 * row["effect"], place, "o", color=colour, ms=4)
    axes.set_yticks(range(len(data)), names)
    axes.set_ylim(len(data) - 0.5, -0.5)
    axes.set_xlabel("interaction on val (points)\n95 % interval\ngrey: may be 0")
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """How many interactions are told from 0, and the largest one."""
    row = data.iloc[0]
    number = int((data["p_holm"].notna() & (data["p_holm"] < ERROR)).sum())
    verb, several = "is" if number == 1 else "are", data.duplicated(["dataset", "factor", "other"])
    name = pair_name(row.to_dict(), with_levels=bool(several.any()))
    told = f"{number or 'None'} of the {len(data)} interactions shown {verb} told from 0"
    return f"{told}; the largest, {name}, is {100 * row['effect']:+.1f} points."
