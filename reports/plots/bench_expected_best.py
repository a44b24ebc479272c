"""Expected best value after n trials of a search: is the order of methods one of the budget?"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.bench.tables import BackboneTables
from reports.plots.base import groups_of, legend_columns, name_of, new_figure, shown_values
from reports.statistics.expected_best import leaders

TITLE = "Expected best value after n trials"
KINDS = ("bench",)
PLACE = 3


def prepare(source: BackboneTables) -> pd.DataFrame:
    """Columns method, objective, n, value, low, high: means over data sets that all have."""
    rows = source.of("expected_best")
    return rows[rows["dataset"] == ""].drop(columns=["backbone", "dataset"]).reset_index(drop=True)


def draw(data: pd.DataFrame, source: BackboneTables) -> Figure | str:
    """A line for each method, with a band up to half of its trials."""
    if data.empty:
        return (
            "The expected best value after n trials needs a data set on which the searches of all "
            "methods have ended, with one objective."
        )
    metric = str(data["objective"].iloc[0])
    figure, axes = new_figure(2.6)
    styles = groups_of(source.methods)
    for method, rows in data.groupby("method", sort=False):
        colour, marker = styles[str(method)]
        axes.plot(rows["n"], shown_values(rows["value"], metric), color=colour, marker=marker,
                  markevery=max(1, len(rows) // 8), ms=3, lw=1.2, label=str(method))  # fmt: skip
        band = rows[rows["low"].notna()]
        axes.fill_between(band["n"].astype(int), shown_values(band["low"], metric),
                          shown_values(band["high"], metric), color=colour, alpha=0.15,
                          lw=0)  # fmt: skip
    axes.set_xlabel("trials of the search")
    axes.set_ylabel(f"expected best {name_of(metric)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper left", ncols=legend_columns(data["method"].unique()))
    return figure


def sentence(data: pd.DataFrame, source: BackboneTables) -> str:
    """Who leads after how many trials."""
    curves = {
        str(method): rows[["value", "low", "high"]].astype(float).to_numpy()
        for method, rows in data.groupby("method", sort=False)
    }
    if len(curves) < 2:
        return ""
    metric = str(data["objective"].iloc[0])
    spans = leaders(curves, -1 if metric.endswith("loss") else 1)
    if len(spans) == 1:
        return f"{spans[0][0]} leads after any number of trials, from 1 to {spans[0][2]}."
    told = "; ".join(
        f"{method} after {first}" + (f" to {last}" if last > first else "")
        for method, first, last in spans
    )
    return f"Who leads changes with the budget: {told} trials."
