"""Demsar's critical-difference diagram, of levels of a study or methods of a bench."""

import json
import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from reports.labels import plural
from reports.plots.base import INK, listed, new_figure
from reports.statistics.across_data_sets import fewest_for_pairs


def draw_ranks(data: pd.DataFrame, styles: Mapping[str, tuple[str, str]], label: str) -> Figure:
    """Levels on the axis of mean ranks; bars join those that do not differ by Wilcoxon-Holm.

    Args:
        data: As of the table of ranks, best first: level, mean_rank, not_worse_than and
            critical_difference.
        styles: Colour and marker by level.
        label: Of the axis.
    """
    lines = label.count("\n") + 1
    figure, axes = new_figure(0.75 + 0.15 * lines + 0.2 * len(data))
    bars = joined(data)
    for place, row in enumerate(data.to_dict("records")):
        axes.plot([row["mean_rank"]] * 2, [0, -place - 1], color="#888888", lw=0.6)
        colour, marker = styles.get(row["level"], (INK, "o"))
        axes.plot(row["mean_rank"], -place - 1, marker, ms=4, color=colour)
        label_of = f"{row['level']} ({row['mean_rank']:.2f})"
        axes.annotate(label_of, (row["mean_rank"], -place - 1), xytext=(5, 0),
                      textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    # Bars below each other, as in Demsar's diagram: overlapping ones would read as one.
    for place, (low, high) in enumerate(bars):
        height = -0.25 - 0.25 * place
        axes.plot([low - 0.03, high + 0.03], [height] * 2, color="#222222", lw=2.5)
    start, width = float(data["mean_rank"].min()), data.iloc[0]["critical_difference"]
    axes.plot([start, start + width], [0.6, 0.6], color=INK, lw=1.5)
    axes.text(start, 0.75, f"Nemenyi's critical difference {width:.2f}", fontsize=7)
    axes.set_xticks(range(1, len(data) + 1))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.35)
    axes.set_xlabel(label)
    return figure


def sentence_of(data: pd.DataFrame) -> str:
    """Which level ranks best, from which others it is told by Nemenyi's difference of mean ranks,
    and from which it is not by Wilcoxon's test of each pair after Holm, which the bars show."""
    first, n = data.iloc[0], int(data.iloc[0]["n"])
    behind = data["mean_rank"] - first["mean_rank"]
    apart = data["level"][behind > first["critical_difference"]]
    same = [name for name in json.loads(first["not_worse_than"]) if name != first["level"]]
    said = f"{first['level']} ranks best, {first['mean_rank']:.2f} on {n} data sets"
    if len(apart):
        said += f"; the critical difference tells it from {listed(apart)}"
    if same:
        needed = fewest_for_pairs(len(data))
        pairs = f"{plural(math.comb(len(data), 2), 'pair')} need {needed} data sets"
        few = f": for that {pairs}" if n < needed else ""
        said += f"; by Wilcoxon-Holm (bars) it is not told apart from {listed(same)}{few}"
    return f"{said}."


def joined(data: pd.DataFrame) -> list[tuple[float, float]]:
    """Longest runs of neighbours in rank of which no two differ, as (low, high) rank."""
    names, ranks = list(data["level"]), list(data["mean_rank"])
    same = [set(json.loads(text)) for text in data["not_worse_than"]]
    # Pairs do not differ transitively, so runs may overlap; those within another are left out.
    runs: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = start
        while end + 1 < len(names) and all(
            names[end + 1] in same[k] for k in range(start, end + 1)
        ):
            end += 1
        if end > start and not any(a <= start and end <= b for a, b in runs):
            runs.append((start, end))
    return [(ranks[a], ranks[b]) for a, b in runs]
