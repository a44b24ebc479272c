"""One-factor sweeps: the mean along a numeric setting, with 95 % intervals over seeds."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from reports.frames import Frames
from reports.plots.base import (
    COLOURS,
    INK,
    WIDTH,
    course,
    levels,
    listed,
    log_axis,
    name_of,
    plain_name,
)

TITLE = "One-factor sweeps"
KINDS = ("ablation",)
PLACE = 3
SHOWN = 6
SAID = 3
"""Factors in the sentence."""
TICKS = 8
"""Levels up to which each has a tick."""
PAPER = {"cvpt.position": 3, "cvpt.num_prompts": 200, "vpt.num_prompts": 50}
"""Best levels of published sweeps. Source: CVPT, ICCV 2025, ablations on VTAB-1k: position 3; CVPT
rises up to 200 prompts, VPT declines beyond 50. The values of TCPA's pool sweep cannot be read."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Rows of factors with three or more numeric levels; the level's number as `x`."""
    rows = levels(tables)
    rows = rows.assign(x=pd.to_numeric(rows["level"], errors="coerce"))
    usable = rows.groupby("factor", sort=False)["x"].transform(lambda x: x.notna().sum() >= 3)
    return rows[usable.astype(bool) & rows["x"].notna()].reset_index(drop=True)


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A panel for each factor; the baseline's level is ringed, the paper's best one dashed."""
    if data.empty:
        return "No factor has three numeric levels, so there is no sweep to draw."
    factors = list(data["factor"].unique())[:SHOWN]
    figure = Figure(figsize=(WIDTH, 1.8 * len(factors)), layout="constrained")
    panels = figure.subplots(len(factors), 1, squeeze=False)[:, 0]
    for axes, factor in zip(panels, factors, strict=True):
        rows = data[data["factor"] == factor].sort_values("x")
        axes.plot(rows["x"], 100 * rows["mean"], "o-", color=INK, ms=3, lw=1)
        # A level with one seed has a mean and no interval.
        known = rows["low"].notna()
        axes.fill_between(
            rows["x"][known], 100 * rows["low"][known], 100 * rows["high"][known],
            color=INK, alpha=0.18, lw=0,
        )  # fmt: skip
        base = rows[rows["is_baseline"]]
        axes.plot(base["x"], 100 * base["mean"], "o", ms=7, mfc="none", mec=COLOURS[1])
        best = PAPER.get(factor.split(" on ")[0])
        if best is not None:
            axes.axvline(best, color="#777777", lw=0.9, ls="--", zorder=0)
            axes.annotate("paper's best", (best, 1), xycoords=("data", "axes fraction"), fontsize=7,
                          color="#777777", ha="center", va="bottom")  # fmt: skip
        if rows["x"].min() > 0 and rows["x"].max() / rows["x"].min() >= 20:
            axes.set_xscale("log")
            log_axis(axes.xaxis)
        if len(rows) <= TICKS:
            axes.set_xticks(rows["x"], rows["level"])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(factor)
        axes.set_ylabel(name_of(tables.study.score.val))
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """How the score runs along each factor."""
    said = []
    for factor in list(data["factor"].unique())[:SAID]:
        rows = data[data["factor"] == factor].sort_values("x")
        said.append(course(str(factor), list(rows["x"]), list(rows["mean"])))
    return f"Mean {plain_name(tables.study.score.val)} {listed(said)}."
