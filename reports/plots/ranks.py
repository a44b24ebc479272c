"""Critical-difference diagram: mean ranks across data sets; equal levels are joined."""

import json

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots.base import INK, level_styles, listed, new_figure, styles_of

TITLE = "Ranks across data sets"
KINDS = ("search", "ablation")
PLACE = 4


def prepare(tables: Frames) -> pd.DataFrame:
    """The rank table of the first factor on the leading objective, best first."""
    ranks = tables.ranks[tables.ranks["friedman_p"].notna()]
    if ranks.empty:
        return ranks
    first = ranks.iloc[0]
    one = ranks[(ranks["factor"] == first["factor"]) & (ranks["metric"] == first["metric"])]
    return one.sort_values("mean_rank", kind="stable").reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """Levels on the axis of mean ranks; bars join those that do not differ by Wilcoxon-Holm."""
    if data.empty:
        return ""
    first = data.iloc[0]
    figure, axes = new_figure(0.9 + 0.2 * len(data))
    bars = joined(data)
    known = level_styles(tables)
    styles = styles_of(tables) | {level: style for (_, level), style in known.items()}
    for place, row in enumerate(data.to_dict("records")):
        axes.plot([row["mean_rank"]] * 2, [0, -place - 1], color="#888888", lw=0.6)
        colour, marker = styles.get(row["level"], (INK, "o"))
        axes.plot(row["mean_rank"], -place - 1, marker, ms=4, color=colour)
        axes.text(row["mean_rank"], -place - 1, f"  {row['level']} ({row['mean_rank']:.2f})",
                  va="center", fontsize=7)  # fmt: skip
    # Bars below each other, as in Demsar's diagram: overlapping ones would read as one.
    for place, (low, high) in enumerate(bars):
        height = -0.25 - 0.25 * place
        axes.plot([low - 0.03, high + 0.03], [height] * 2, color="#222222", lw=2.5)
    start = float(data["mean_rank"].min())
    axes.plot([start, start + first["critical_difference"]], [0.6, 0.6], color=INK, lw=1.5)
    axes.text(start, 0.75, f"critical difference {first['critical_difference']:.2f}", fontsize=7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.35)
    axes.set_xlabel(f"mean rank on {first['n']} data sets (Friedman p = {first['friedman_p']:.2g})")
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Which level ranks best, and from which it is not told apart."""
    first = data.iloc[0]
    same = [name for name in json.loads(first["not_worse_than"]) if name != first["level"]]
    said = f"{first['level']} ranks best, {first['mean_rank']:.2f} on {first['n']} data sets"
    return f"{said}; it is not told apart from {listed(same)}." if same else f"{said}."


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
