"""Learning curves: mean over trials of a group, with the band of their range."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.plots.base import COLOURS, Tables, methods_label, new_figure, sentence

TITLE = "Learning curves"


def prepare(tables: Tables) -> pd.DataFrame:
    """Columns group, epoch, mean, low, high; groups are levels of an ablation or methods."""
    metric = tables.study.curve_metric
    trials = tables.trials
    columns = ["group", "epoch", "mean", "low", "high"]
    if tables.epochs.empty or "methods" not in trials:
        return pd.DataFrame(columns=columns)
    group = trials["level"] if "level" in trials else trials["methods"].map(methods_label)
    names = dict(zip(trials["trial"], group, strict=True))
    epochs = tables.epochs.assign(group=tables.epochs["trial"].map(names)).dropna(subset=[metric])
    by = epochs.groupby(["group", "epoch"], sort=False)[metric]
    data = by.agg(mean="mean", low="min", high="max").reset_index()
    return data[columns]


def draw(data: pd.DataFrame, tables: Tables) -> Figure:
    """One line and band for each group."""
    if data.empty:
        return sentence("No epoch is recorded yet.")
    figure, axes = new_figure()
    for colour, (name, rows) in zip(COLOURS * 4, data.groupby("group", sort=False), strict=False):
        rows = rows.sort_values("epoch")
        axes.plot(rows["epoch"], rows["mean"], color=colour, label=str(name), lw=1.2)
        axes.fill_between(rows["epoch"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch (band: range over trials)")
    axes.set_ylabel(tables.study.curve_metric)
    axes.legend(ncols=2)
    return figure
