"""Optimisation history: every point with a value, the best so far, and the regret."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from reports.frames import Frames
from reports.labels import method_column
from reports.plots.base import (
    DOTS,
    WIDTH,
    legend_columns,
    log_axis,
    name_of,
    plain_name,
    shown_values,
    squeeze,
    styles_of,
    value_text,
)

TITLE = "History and regret"
KINDS = ("search",)
PLACE = 1


def prepare(tables: Frames) -> pd.DataFrame:
    """Columns number, value, status, methods, best, regret; points in the order planned.

    A point's value is the mean over its completed replicates, or over what it has where none did.
    It is "completed" with all of them: `best` runs over such points only, and `regret` is its
    distance from the study's best.
    """
    objective = tables.study.objectives[0]
    trials = tables.trials
    value = trials[objective.metric].astype(float)
    value = value.where(np.isfinite(value))
    is_used = (trials["left_out"] == "").to_numpy()
    by_point = pd.DataFrame(
        {
            "point": trials["point"].fillna(trials["trial"]).to_numpy(),
            "used": value.where(is_used).to_numpy(),
            "any": value.to_numpy(),
            "is_used": is_used,
            "methods": method_column(trials).to_numpy(),
        }
    ).groupby("point", sort=False)
    data = by_point[["used", "any"]].mean()
    data = pd.DataFrame(
        {
            "number": np.arange(len(data)),
            "value": data["used"].fillna(data["any"]).to_numpy(),
            "status": np.where(by_point["is_used"].all(), "completed", "incomplete"),
            "methods": by_point["methods"].first().fillna("").to_numpy(),
        }
    )
    data = data[data["value"].notna()]
    done = data["value"].where(data["status"] == "completed")
    gain = (objective.sign * done).cummax().ffill()
    data["best"] = objective.sign * gain
    data["regret"] = gain.max() - gain
    return data


def outline(data: pd.DataFrame) -> pd.DataFrame:
    """Lines, limits and legend of thousands of points: where the best so far changes, and ends."""
    steps = data[data["best"].notna() & data["best"].ne(data["best"].shift())]
    low, high = data["value"].quantile([0.02, 1])
    return pd.DataFrame(
        {
            "at": [*(steps["number"] / data["number"].max()), 0.0, 1.0],
            "value": [*steps["best"], low, high],
            "regret": [*steps["regret"], np.nan, np.nan],
            "methods": ", ".join(sorted(data["methods"].unique())),
        }
    )


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """Points by method (incomplete ones hollow), the running best as a line, the regret below."""
    if data.empty:
        return "No trial has a result yet, so there is no history."
    metric = tables.study.objectives[0].metric
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    # the legend's lines stand above the axes, within the figure
    dots = dict(s=10 if len(data) < 300 else 3, rasterized=len(data) > DOTS)
    for name, (colour, marker) in styles_of(tables).items():
        rows = data[data["methods"] == name]
        if rows.empty:
            continue
        full, rest = rows["status"] == "completed", rows["status"] != "completed"
        values = shown_values(rows["value"], metric)
        top.scatter(rows["number"][full], values[full], color=colour, marker=marker, label=name,
                    lw=0, zorder=3, **dots)  # fmt: skip
        top.scatter(rows["number"][rest], values[rest], facecolors="none", edgecolors=colour,
                    marker=marker, lw=0.6, **dots)  # fmt: skip
    top.step(data["number"], shown_values(data["best"], metric), where="post", color="#444444",
             lw=1)  # fmt: skip
    squeeze(top, shown_values(data["value"], metric))
    top.set_ylabel(name_of(metric))
    top.legend(
        ncols=legend_columns(set(data["methods"])),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        markerscale=1.5,
        handletextpad=0,
    )
    regret = shown_values(data["regret"], metric)
    bottom.step(data["number"], regret, where="post", color="#444444", lw=1)
    if (regret > 0).any():
        # The regret ends at 0, which a logarithmic axis does not have.
        bottom.set_yscale("symlog", linthresh=float(regret[regret > 0].min()))
        bottom.yaxis.set_minor_locator(NullLocator())
        log_axis(bottom.yaxis)
    bottom.set_ylabel("regret")
    bottom.set_xlabel("point, mean over its seeds\n(hollow: stopped, or a seed is missing)")
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """When the best was found, and what has come since."""
    best = data["best"].dropna()
    metric = tables.study.objectives[0].metric
    if best.empty:
        return f"No point has all its seeds yet; {len(data)} have a value."
    at = int(data.loc[best.index[best.ne(best.iloc[-1]).sum()], "number"])
    since = int(data["number"].max()) - at
    after = f"; the {since} points after it brought nothing better" if since else ""
    found = f"point {at} of {int(data['number'].max()) + 1}, counted from 0"
    return f"The best {plain_name(metric)}, {value_text(best.iloc[-1], metric)}, is {found}{after}."
