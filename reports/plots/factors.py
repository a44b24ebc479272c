"""Means of a design's levels with 95 % intervals over seeds."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import COMBINATION, unspoken
from reports.plots.base import INK, level_styles, levels, listed, name_of, new_figure
from reports.statistics.paired_tests import ERROR

TITLE = "Factor levels"
KINDS = ("ablation",)
PLACE = 1
SAID = 4
"""Levels in the sentence."""
LETTERS = 30
"""Of a level's name in a line."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of the ablation table on val that have a mean, in the design's order."""
    return levels(tables).reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A dot and an interval for each level, in its colour; levels of a factorial have none."""
    if data.empty:
        return "No level of the design has a result yet, so there is nothing to compare."
    styles = level_styles(tables)
    labels = [
        _label(factor, str(level), alone=data["factor"].nunique() == 1)
        for factor, level in zip(data["factor"], data["level"], strict=True)
    ]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = new_figure(max(1.2, 0.65 + (0.12 + 0.12 * lines) * len(data)))
    for place, row in enumerate(data.to_dict("records")):
        colour, marker = styles.get((row["setting"], row["level"]), (INK, "o"))
        if pd.notna(row["low"]):
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(100 * row["mean"], place, marker, color=colour, ms=4)
    axes.set_yticks(range(len(data)), labels)
    axes.set_ylim(len(data) - 0.5, -0.5)
    interval = (
        "95 % interval"
        if data["low"].notna().any()
        else ("one seed: no interval" if data["n"].max() == 1 else "all seeds equal: no interval")
    )
    axes.set_xlabel(f"{name_of(tables.study.score.val)}\nmean, {interval}")
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Which level has the highest mean, and which are told apart from their baseline.

    Means on different data sets are not compared with each other.
    """
    best = data.iloc[int(data["mean"].argmax())]
    alone = data["factor"].nunique() == 1
    sets = tables.ablation["dataset"].nunique()
    named = _name(best, alone)
    what = unspoken(tables.study.score.val)
    said = f"The highest mean{what and ' '}{what} is that of {named}, {100 * best['mean']:.1f} %"
    said = f"Each level on each of {sets} data sets" if sets > 1 else said
    others = data[~data["is_baseline"].astype(bool)]
    tested = others[others["p_holm"].notna()]
    if tested.empty:
        return f"{said}; no level is tested against its baseline."
    apart = tested[tested["p_holm"] < ERROR]
    if apart.empty:
        return f"{said}; no level is told apart from its baseline."
    names = [_name(row, alone) for _, row in apart.iterrows()]
    more = f" and {len(names) - SAID} more" if len(names) > SAID else ""
    shown = f"{', '.join(names[:SAID])}{more}" if more else listed(names)
    return f"{said}; told apart from the baseline: {shown}."


def _name(row: pd.Series, alone: bool) -> str:
    level = str(row["level"])
    if alone and level.replace(".", "").isdigit():
        return f"{row['factor']} = {level}"
    return level if alone else f"{row['factor']} = {row['level']}"


def _label(factor: str, level: str, *, alone: bool) -> str:
    """Name of a level; a combination names its factors itself."""
    text = level if alone or factor.startswith(COMBINATION) else f"{factor} = {level}"
    return "\n".join(textwrap.wrap(text, LETTERS))
