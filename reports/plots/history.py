"""Optimisation history: every completed trial and the best so far."""

import pandas as pd
from matplotlib.figure import Figure

from reports.plots.base import COLOURS, Tables, methods_label, new_figure, sentence

TITLE = "Optimisation history"


def prepare(tables: Tables) -> pd.DataFrame:
    """Columns number, value, best, status, methods; trials in the order they were planned."""
    objective = tables.study.objectives[0]
    frame = tables.trials.reset_index(drop=True)
    if objective.metric not in frame:
        return pd.DataFrame(columns=["number", "value", "best", "status", "methods"])
    data = pd.DataFrame(
        {
            "number": frame.index,
            "value": frame[objective.metric].astype("Float64"),
            "status": frame["status"],
            "methods": frame["methods"].map(methods_label) if "methods" in frame else "",
        }
    ).dropna(subset=["value"])
    done = data["value"].where(data["status"] == "completed")
    data["best"] = (done.cummax() if objective.maximize else done.cummin()).ffill()
    return data


def draw(data: pd.DataFrame, tables: Tables) -> Figure:
    """Points by method (pruned ones hollow) and the running best as a line."""
    if data.empty:
        return sentence("No trial has a result yet.")
    figure, axes = new_figure()
    for colour, (name, rows) in zip(COLOURS * 4, data.groupby("methods"), strict=False):
        full = rows[rows["status"] == "completed"]
        rest = rows[rows["status"] != "completed"]
        axes.scatter(full["number"], full["value"], s=14, color=colour, label=name, zorder=3)
        axes.scatter(rest["number"], rest["value"], s=12, facecolors="none", edgecolors=colour)
    axes.step(data["number"], data["best"].astype(float), where="post", color="#444444", lw=1)
    axes.set_xlabel("trial (hollow: stopped early)")
    axes.set_ylabel(tables.study.objectives[0].metric)
    axes.legend(ncols=2)
    return figure
