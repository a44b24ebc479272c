"""Pareto front: the leading objective against trainable parameters, FLOPs and time."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import group_column
from reports.plots.base import (
    DOTS,
    IN_LEGEND,
    WIDTH,
    legend_columns,
    log_axis,
    name_of,
    plain_name,
    shown_values,
    spoken,
    squeeze,
    styles_of,
    value_text,
    wrapped,
)
from reports.statistics.fronts import on_front
from tcpa_core.record.scores import is_share

TITLE = "Pareto fronts"
KINDS = ("search", "ablation")
PLACE = 8
COSTS = {
    "num_trainable": "trainable parameters",
    "flops_per_image": "FLOPs per image",
    "duration_s": "training time (s)",
}


def prepare(tables: Frames) -> pd.DataFrame:
    """Used trials: columns trial, group, value, the costs, and front_COST (on that front)."""
    objective = tables.study.objectives[0]
    used = tables.used
    data = pd.DataFrame({"trial": used["trial"], "group": group_column(used),
                         "value": used[objective.metric].astype(float)})  # fmt: skip
    for cost in COSTS:
        data[cost] = used[cost].astype("Float64").to_numpy(float, na_value=np.nan)
        data[f"front_{cost}"] = on_front(data[cost], objective.sign * data["value"])
    return data


def outline(data: pd.DataFrame) -> pd.DataFrame:
    """Fronts, limits and legend of thousands of points."""
    is_front = data[[f"front_{cost}" for cost in COSTS]].any(axis=1)
    limits = data[["value", *COSTS]].quantile([0, 0.02, 1])
    both = pd.concat([data[is_front], limits]).drop(columns=["trial", "group"])
    return both.assign(group=", ".join(sorted(data["group"].unique())))


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A panel for each cost that differs between trials."""
    costs = [cost for cost in COSTS if data[cost].nunique() > 1]
    if len(data) < 2 or not costs:
        return "A Pareto front needs two completed trials whose costs differ."
    metric = tables.study.objectives[0].metric
    present = set(data["group"])
    styles = {name: style for name, style in styles_of(tables).items() if name in present}
    columns = legend_columns(styles)
    labels = {name: wrapped(name, IN_LEGEND) for name in styles}
    lines = sum(label.count("\n") + 1 for label in labels.values())
    height = 1.65 * len(costs) + 0.15 * -(-lines // columns)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(costs), 1, squeeze=False)[:, 0]
    for axes, cost in zip(panels, costs, strict=True):
        for name, (colour, marker) in styles.items():
            rows = data[data["group"] == name]
            axes.scatter(
                rows[cost], shown_values(rows["value"], metric), s=16 if len(data) < 300 else 8,
                color=colour, lw=0, alpha=0.6, marker=marker, label=labels[name],
                rasterized=len(data) > DOTS,
            )  # fmt: skip
        front = data[data[f"front_{cost}"]].sort_values(cost)
        axes.step(front[cost], shown_values(front["value"], metric), where="post",
                  color="#222222", lw=1)  # fmt: skip
        # Counts of parameters span three decades between a head and a whole network.
        if data[cost].min() > 0 and data[cost].max() / data[cost].min() > 20:
            axes.set_xscale("log")
            log_axis(axes.xaxis)
        axes.set_xlabel(COSTS[cost])
    for axes in panels:
        squeeze(axes, shown_values(data["value"], metric))
        axes.set_ylabel(name_of(metric))
    entries = panels[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside upper left", ncols=columns, markerscale=1.5)
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """What the best trial costs, and the cheapest one that nearly reaches it."""
    objective = tables.study.objectives[0]
    cost = next(cost for cost in COSTS if data[cost].nunique() > 1)
    known = data[data[cost].notna()]
    worth = objective.sign * known["value"]
    best = known.iloc[int(worth.argmax())]
    # a point of a score, or a hundredth of another metric
    near = 0.01 if is_share(objective.metric) else 0.01 * abs(best["value"])
    cheap = known[worth >= worth.max() - near].sort_values(cost, kind="stable").iloc[0]
    name = COSTS[cost]
    said = (
        f"The best {plain_name(objective.metric)}, {value_text(best['value'], objective.metric)}"
        f"{_by(best, tables)}, takes {best[cost]:,.4g} {name}"
    )
    if cheap[cost] < best[cost]:
        value = value_text(cheap["value"], objective.metric)
        said += f"; {value}{_by(cheap, tables)} takes {cheap[cost]:,.4g}"
    return f"{said}."


def _by(row: pd.Series, tables: Frames) -> str:
    return f" of {spoken(row['group'], tables)}" if row["group"] else ""
