"""Performance profiles of a bench: share of runs above each score, with bands over seeds."""

import pandas as pd
from matplotlib.figure import Figure

from reports.bench.tables import BackboneTables
from reports.plots.base import groups_of, legend_columns, new_figure

TITLE = "Performance profiles"
KINDS = ("bench",)
PLACE = 2


def prepare(source: BackboneTables) -> pd.DataFrame:
    """Columns method, tau, share, low, high: where the profiles are neither all 1 nor all 0."""
    data = source.of("profiles")[["method", "tau", "share", "low", "high"]]
    inner = data[(data["share"] < 1) & (data["share"] > 0)]
    if inner.empty:
        return data.iloc[:0]
    low, high = inner["tau"].min() - 0.02, inner["tau"].max() + 0.02
    return data[(data["tau"] >= low) & (data["tau"] <= high)].reset_index(drop=True)


def draw(data: pd.DataFrame, source: BackboneTables) -> Figure | str:
    """A step line for each method."""
    if data.empty:
        return "Performance profiles need a data set on which all compared methods have a value."
    figure, axes = new_figure(2.6)
    styles = groups_of(source.methods)
    for method, rows in data.groupby("method", sort=False):
        colour, marker = styles[str(method)]
        x, every = 100 * rows["tau"], max(1, len(rows) // 8)
        axes.plot(x, 100 * rows["share"], color=colour, lw=1.2, drawstyle="steps-post",
                  marker=marker, markevery=every, ms=3, label=str(method))  # fmt: skip
        axes.fill_between(x, 100 * rows["low"], 100 * rows["high"], step="post", color=colour,
                          alpha=0.15, lw=0)  # fmt: skip
    axes.set_xlabel(f"score on {source.metric} (%)")
    axes.set_ylabel("runs above it (%)")
    axes.set_ylim(-3, 103)
    labels = data["method"].unique()
    figure.legend(loc="outside upper left", ncols=legend_columns(labels))
    return figure


def sentence(data: pd.DataFrame, source: BackboneTables) -> str:
    """Whether one profile lies above all others."""
    shares = data.pivot(index="tau", columns="method", values="share")
    top = [str(m) for m in shares if shares[m].ge(shares.max(axis=1) - 1e-12).all()]
    if len(top) == 1 and shares.shape[1] > 1:
        return f"{top[0]} has at every score the largest share of runs above it."
    if shares.shape[1] < 2:
        return "Share of runs that score above a threshold, data sets weighing the same."
    return "No method has at every score the largest share of runs above it."
