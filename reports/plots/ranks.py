"""Critical-difference diagram: mean ranks across data sets; equal levels are joined."""

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots._rank_diagram import draw_ranks, sentence_of
from reports.plots.base import level_styles, styles_of

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
    known = level_styles(tables)
    styles = styles_of(tables) | {level: style for (_, level), style in known.items()}
    label = f"mean rank on {first['n']} data sets (Friedman p = {first['friedman_p']:.2g})"
    return draw_ranks(data, styles, label)


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Which level ranks best, and from which it is not told apart."""
    return sentence_of(data)
