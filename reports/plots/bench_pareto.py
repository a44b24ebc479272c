"""Pareto fronts of a bench: mean over data sets against trained parameters and training time."""

import pandas as pd
from matplotlib.figure import Figure

from reports.bench.tables import BackboneTables
from reports.plots.base import WIDTH, groups_of, legend_columns, listed, log_axis

TITLE = "Mean against parameters and training time"
KINDS = ("bench",)
PLACE = 4
WIDE = True
COSTS = {
    "num_trainable_no_head": ("trained parameters without head", "on_parameter_front"),
    "train_s": ("training time of one seed (s)", "on_time_front"),
}


def prepare(source: BackboneTables) -> pd.DataFrame:
    """Methods with a mean; costs are means over the same data sets."""
    methods = source.of("methods")
    known = methods[methods["mean"].notna()]
    names = [name for cost, (_, front) in COSTS.items() for name in (cost, front)]
    return known[["method", "mean", *names]].reset_index(drop=True)


def draw(data: pd.DataFrame, source: BackboneTables) -> Figure | str:
    """A panel for each cost; the front is a line."""
    costs = [cost for cost in COSTS if data[cost].notna().sum() > 1]
    if len(data) < 2 or not costs:
        return "A Pareto front needs two methods with a mean over data sets and their costs."
    figure = Figure(figsize=(2 * WIDTH, 2.4), layout="constrained")
    panels = figure.subplots(1, len(costs), squeeze=False)[0]
    styles = groups_of(source.methods)
    for axes, cost in zip(panels, costs, strict=True):
        label, front = COSTS[cost]
        known = data[data[cost].notna()]
        for row in known.to_dict("records"):
            colour, marker = styles[row["method"]]
            axes.plot(row[cost], 100 * row["mean"], marker, ms=5, color=colour, ls="none",
                      label=row["method"])  # fmt: skip
        line = known[known[front].fillna(False).astype(bool)].sort_values(cost)
        axes.step(line[cost], 100 * line["mean"], where="post", color="#222222", lw=0.9)
        if known[cost].min() > 0 and known[cost].max() / known[cost].min() > 20:
            axes.set_xscale("log")
            log_axis(axes.xaxis)
        axes.set_xlabel(label)
        axes.margins(x=0.1, y=0.15)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2 * legend_columns(labels))
    panels[0].set_ylabel(f"mean on {source.metric} (%)")
    return figure


def sentence(data: pd.DataFrame, source: BackboneTables) -> str:
    """Which methods nothing cheaper reaches."""
    told = []
    for cost, (label, front) in COSTS.items():
        names = data["method"][data[front].fillna(False).astype(bool)]
        if data[cost].notna().sum() > 1 and len(names):
            told.append(f"for {label.partition(' (')[0]} {listed(names)}")
    return f"On the front: {'; '.join(told)}." if told else ""
