"""Critical-difference diagram of a bench: mean ranks of its methods; equal ones are joined."""

import pandas as pd
from matplotlib.figure import Figure

from reports.bench.tables import BackboneTables
from reports.plots._rank_diagram import draw_ranks, sentence_of
from reports.plots.base import groups_of

TITLE = "Ranks across data sets"
KINDS = ("bench",)
PLACE = 1


def prepare(source: BackboneTables) -> pd.DataFrame:
    """Methods with a rank, best first; `level` is the method."""
    methods = source.of("methods")
    ranked = methods[methods["critical_difference"].notna()].rename(columns={"method": "level"})
    return ranked.sort_values("mean_rank", kind="stable").reset_index(drop=True)


def draw(data: pd.DataFrame, source: BackboneTables) -> Figure | str:
    """Methods on the axis of mean ranks; bars join those that do not differ by Wilcoxon-Holm."""
    if data.empty:
        return "Ranks are tested from 3 methods on 5 data sets that all of them have."
    first = data.iloc[0]
    label = (
        f"mean rank on {first['n']} data sets\n(Friedman p = {first['friedman_p']:.2g}, "
        f"Iman-Davenport p = {first['iman_davenport_p']:.2g})"
    )
    return draw_ranks(data, groups_of(source.methods), label)


def sentence(data: pd.DataFrame, source: BackboneTables) -> str:
    """Which method ranks best, and from which it is not told apart."""
    return sentence_of(data)
