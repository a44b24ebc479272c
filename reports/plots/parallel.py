"""Parallel coordinates: completed trials as lines over the searched settings."""

import zlib

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import method_column
from reports.plots.base import WIDTH, name_of
from reports.statistics.importance import first_of

TITLE = "Parallel coordinates"
KINDS = ("search",)
PLACE = 7
WIDE = True
LINES = 500
"""Lines drawn at most: the best tenth of them, and others chosen by a hash of the trial."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Searched settings and the objective of used trials, each scaled to [0, 1], best last."""
    objective = tables.study.objectives[0]
    used = tables.used.sort_values(objective.metric, ascending=objective.maximize, kind="stable")
    if "methods" in used:
        used = used.assign(methods=method_column(used))
    axes = [a for a in tables.study.axes if a in used and used[a].nunique() > 1]
    log = {a for a in axes if tables.study.axes[a].get("log")}
    data = pd.DataFrame({a: _scaled(used[a], a in log) for a in [*axes, objective.metric]})
    if len(data) <= LINES:
        return data
    best = LINES // 10
    # The same trials are chosen again when a few come in.
    known = used["trial"].isin(first_of(tables.used)["trial"]).to_numpy()[:-best]
    chance = used["trial"][:-best].map(lambda trial: zlib.crc32(trial.encode()))
    order = np.argsort(np.where(known, chance, np.inf), kind="stable")
    chosen = np.sort(order[: LINES - best])
    return data.iloc[[*chosen, *range(len(data) - best, len(data))]]


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """Lines coloured by the objective; a setting that a trial does not have interrupts its line."""
    if len(data) < 2 or data.shape[1] < 2:
        return "Parallel coordinates need two completed trials and a searched setting."
    figure = Figure(figsize=(2 * WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    values = data.to_numpy(float)
    places = np.arange(data.shape[1])
    worth = values[:, -1] if tables.study.objectives[0].maximize else 1 - values[:, -1]
    # Good trials are drawn last and strongest: they are few, and the others would hide them.
    strength = np.linspace(0.15, 0.9, len(values))
    colours = matplotlib.colormaps["viridis_r"](worth)
    colours[:, 3] = strength
    lines = [np.column_stack([places, row]) for row in values]
    axes.add_collection(LineCollection(lines, colors=colours, lw=0.8, rasterized=len(lines) > 100))
    # Where a line is interrupted on both sides only a dot shows its value.
    axes.scatter(
        np.tile(places, len(values)), values.ravel(), s=2, lw=0, rasterized=True,
        c=np.repeat(colours, data.shape[1], axis=0),
    )  # fmt: skip
    axes.set_xlim(-0.15, places[-1] + 0.15)
    axes.set_ylim(-0.03, 1.03)
    for place in range(len(places)):
        axes.axvline(place, color="#888888", lw=0.5, zorder=0)
    names = [*data.columns[:-1], name_of(str(data.columns[-1]))]
    axes.set_xticks(places, names, rotation=25, ha="right")
    axes.set_yticks([0, 1], ["lowest", "highest"])
    return figure


def _scaled(column: pd.Series, log: bool) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(float, na_value=np.nan)
        numbers = pd.Series(np.log(values) if log else values, index=column.index)
    else:
        codes, _ = pd.factorize(column, sort=True)
        numbers = pd.Series(codes, index=column.index, dtype=float).where(column.notna())
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span > 0 else numbers * 0 + 0.5
