"""Learning curves: mean over the trials of a group, with a band."""

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from reports.frames import Frames
from reports.labels import group_column
from reports.plots.base import (
    IN_LEGEND,
    legend_columns,
    name_of,
    new_figure,
    plain_name,
    shown_values,
    spoken,
    styles_of,
    value_text,
    wrapped,
)
from tcpa_core.record.scores import is_share

TITLE = "Learning curves"
KINDS = ("search", "ablation")
PLACE = 2
SHOWN = 8
ON = " on "
"""Between a level and its data set."""
DASHES = ("-", "--", ":", "-.")
"""Of the first data set, the second ..."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Columns group, epoch, mean, low, high.

    Groups are the levels of a design on each data set, else methods. In an ablation the band is
    the 95 % interval over seeds; in a search it holds the middle 90 % of the trials.
    """
    metric = tables.study.curve_metric
    epochs = tables.epochs
    # By codes and one sort: grouping 500,000 rows by strings took most of the report's time.
    trial = epochs["trial"].cat
    codes, uniques = pd.factorize(_groups(tables).reindex(trial.categories).fillna(""))
    group = codes[trial.codes] if len(epochs) else np.zeros(0, int)
    epoch = epochs["epoch"].to_numpy(int)
    value = epochs[metric].to_numpy(float)
    rows = []
    order = np.lexsort((epoch, group))
    keys = np.stack([group[order], epoch[order]], axis=1)
    changes = 1 + np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1))
    for part in np.split(order, changes):
        # An epoch that diverged has no mean; its trial is counted among those left out.
        finite = value[part][np.isfinite(value[part])]
        if len(finite):
            low, high = _band(finite, tables.study.kind)
            rows.append((uniques[group[part[0]]], epoch[part[0]], finite.mean(), low, high))
    return pd.DataFrame(rows, columns=["group", "epoch", "mean", "low", "high"])


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """One line and band for each group."""
    if data.empty:
        return "No epoch is recorded yet, so there are no learning curves."
    metric = tables.study.curve_metric
    lines = _lines(data, tables)
    columns = legend_columns(lines)
    labels = {name: wrapped(name, IN_LEGEND) for name in lines}
    rows_of_legend = -(-sum(label.count("\n") + 1 for label in labels.values()) // columns)
    figure, axes = new_figure(2.1 + 0.15 * rows_of_legend)
    for name, (colour, marker, dash) in lines.items():
        rows = data[data["group"] == name].sort_values("epoch")
        mean, low, high = (shown_values(rows[c], metric) for c in ("mean", "low", "high"))
        axes.plot(rows["epoch"], mean, color=colour, marker=marker, label=labels[name] or "all",
                  lw=1.1, ls=dash, ms=3, markevery=max(1, len(rows) // 5))  # fmt: skip
        axes.fill_between(rows["epoch"], low, high, color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    band = "95 % over seeds" if tables.study.kind == "ablation" else "middle 90 % of trials"
    more = data["group"].nunique() - len(lines)
    axes.set_xlabel(
        f"epoch\n(band: {band}{f'; the best {SHOWN} of {SHOWN + more}' if more else ''})"
    )
    axes.set_ylabel(name_of(metric))
    figure.legend(loc="outside upper left", ncols=columns)
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Who is highest at the end, and whether it still gets better there."""
    metric, last = tables.study.curve_metric, int(data["epoch"].max())
    sign = 1 if is_share(metric) else -1
    ends = data.sort_values("epoch").groupby("group", sort=False).last()
    ends = ends[ends["epoch"] == last]
    best = str((sign * ends["mean"]).idxmax())
    curve = data[data["group"] == best].set_index("epoch")["mean"]
    value = value_text(curve[last], metric)
    name = f"the mean {plain_name(metric)} is"
    if best:
        name = f"{spoken(best, tables)} has the best mean {plain_name(metric)},"
    said = f"Of the trials that reached epoch {last}, {name} {value}"
    quarter = curve[curve.index <= last - max(1, last // 4)]
    if len(quarter) == 0:
        return f"{said}."
    gain = sign * (curve[last] - quarter.iloc[-1])
    # of all that was gained since the first epoch
    whole = sign * (curve[last] - curve.iloc[0])
    trend = "is still getting better" if whole > 0 and gain > 0.1 * whole else "has levelled off"
    return f"{said}; its curve {trend} there."


def _groups(tables: Frames) -> pd.Series:
    """Group of each trial, by its number."""
    trials = tables.trials.set_index("trial")
    names = group_column(trials)
    if tables.study.kind == "search":
        return names
    # of a design's trial all cells are on one data set
    sets = trials["cells"].map(lambda cells: (json.loads(cells) or [{}])[0].get("dataset", ""))
    return names.where(sets == "", names + ON + sets)


def _lines(data: pd.DataFrame, tables: Frames) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dashes of each group that is drawn."""
    styles = styles_of(tables)
    order, sets, found = list(styles), dict[str, str](), {}
    for group in data["group"].unique():
        # a level has one colour on all data sets, which differ in their dashes
        name, dataset = (group, "") if group in styles else group.rsplit(ON, 1)
        dash = sets.setdefault(dataset, DASHES[len(sets) % len(DASHES)])
        found[group] = (order.index(name), (*styles[name], dash))
    if len(found) > SHOWN:
        sign = 1 if is_share(tables.study.curve_metric) else -1
        ends = sign * data.sort_values("epoch").groupby("group")["mean"].last()
        found = {group: found[group] for group in ends.nlargest(SHOWN).index}
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return {group: style for group, (_, style) in ordered}


def _band(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", kind: str) -> tuple[float, float]:
    if kind == "search":
        low, high = np.quantile(values, [0.05, 0.95])
        return float(low), float(high)
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    margin = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - margin), float(values.mean() + margin)
