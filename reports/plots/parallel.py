"""Parallel coordinates: completed trials as lines over the searched settings, which lie."""

import zlib
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.labels import group_column, method_column, methods_label
from reports.plots.base import WIDTH, listed, name_of, styles_of
from reports.statistics.importance import first_of
from tcpa_core.record.scores import is_share

TITLE = "Parallel coordinates"
KINDS = ("search",)
PLACE = 7
FEWEST = 0.2
"""Share of the trials that must have a setting for it to be shown."""
LETTERS = 30
"""Of the names along an axis."""
ON_LINES: Any = {"bbox": {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75}}
LINES = 500
"""Lines drawn at most: the best tenth of them, and others chosen by a hash of the trial."""


def prepare(tables: Frames) -> pd.DataFrame:
    """Searched settings and the objective of used trials, each scaled to [0, 1], best last."""
    objective = tables.study.objectives[0]
    used = tables.used.sort_values(objective.metric, ascending=objective.maximize, kind="stable")
    if "methods" in used:
        used = used.assign(methods=method_column(used))
    axes = [a for a in tables.study.axes if a in used and used[a].nunique() > 1]
    # Of twenty methods each has settings of its own, which hardly any trial has.
    axes = [a for a in axes if used[a].notna().mean() >= FEWEST]
    axes.sort(key=lambda axis: axis != "methods")
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
    """A line of values for each setting; one that a trial does not have interrupts its line."""
    if len(data) < 2 or data.shape[1] < 2:
        return "Parallel coordinates need two completed trials and a searched setting."
    height = 0.45 * data.shape[1] + 0.3
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    values = data.to_numpy(float)
    places = np.arange(data.shape[1])
    styles = styles_of(tables)
    groups = group_column(tables.trials.loc[data.index])
    colours = to_rgba_array([styles[name][0] for name in groups])
    # Good trials are drawn last and strongest: they are few, and the others would hide them.
    colours[:, 3] = np.linspace(0.15, 0.9, len(values))
    lines = [np.column_stack([row, places]) for row in values]
    axes.add_collection(LineCollection(lines, colors=colours, lw=0.8, rasterized=len(lines) > 100))
    # Where a line is interrupted on both sides only a dot shows its value.
    axes.scatter(
        values.ravel(), np.tile(places, len(values)), s=3, lw=0, rasterized=True,
        c=np.repeat(colours, data.shape[1], axis=0),
    )  # fmt: skip
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(places[-1] + 0.45, -0.5)
    metric = str(data.columns[-1])
    for place, name in enumerate(map(str, data.columns)):
        axes.axhline(place, color="#888888", lw=0.5, zorder=0)
        shown = name_of(metric) if name == metric else name
        # names and values stand on the lines, so each has a ground of its own
        axes.text(0, place - 0.13, shown, fontsize=7, weight="bold", va="bottom", **ON_LINES)
        for share, text in _ticks(tables, name):
            side = "left" if share < 0.05 else "right" if share > 0.95 else "center"
            axes.text(share, place + 0.1, text, fontsize=7, ha=side, va="top", **ON_LINES)
    axes.set_axis_off()
    return figure


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Where the settings of the best trials lie, as far as that is less than half of a range."""
    objective = tables.study.objectives[0]
    used = tables.used.sort_values(
        objective.metric, ascending=not objective.maximize, kind="stable"
    )
    best = used.head(max(2, len(used) // 10))
    said = []
    for name in map(str, data.columns[:-1]):
        values = best[name].dropna()
        ends = data.loc[data.index.intersection(best.index), name].dropna()
        if values.empty or len(values) < len(best) or np.ptp(ends.to_numpy(float)) > 0.5:
            continue
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            low, high = float(values.min()), float(values.max())
            said.append(f"{name} " + (f"{low:.3g} to {high:.3g}" if high > low else f"= {low:.3g}"))
        elif values.nunique() == 1:
            said.append(f"{name} = {methods_label(values.iloc[0])}")
    if not said:
        return f"The best {len(best)} trials spread over more than half of every setting's range."
    return f"The best {len(best)} trials have {listed(said)}."


def _ticks(tables: Frames, name: str) -> list[tuple[float, str]]:
    """Ends and middle of an axis, or its names as far as they have room: place and text."""
    column = tables.used[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        labels = [methods_label(v) for v in _levels(tables, name)]
        step = max(1, -(-sum(map(len, labels)) // LETTERS))
        last = max(1, len(labels) - 1)
        return [(k / last, label) for k, label in enumerate(labels) if k % step == 0]
    low, high = float(column.min()), float(column.max())
    is_log = bool((tables.study.axes.get(name) or {}).get("log"))
    middle = (low * high) ** 0.5 if is_log else (low + high) / 2
    scale = 100 if is_share(name) else 1
    values = [low, middle, high] if high > low else [low]
    places = (0.0, 0.5, 1.0) if high > low else (0.5,)
    return [(share, f"{scale * v:.3g}") for share, v in zip(places, values, strict=True)]


def _levels(tables: Frames, name: str) -> list[str]:
    values = tables.used[name].dropna()
    if name == "methods":
        values = method_column(tables.used).dropna()
    return sorted(values.astype(str).unique())


def _scaled(column: pd.Series, log: bool) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(float, na_value=np.nan)
        numbers = pd.Series(np.log(values) if log else values, index=column.index)
    else:
        codes, _ = pd.factorize(column, sort=True)
        numbers = pd.Series(codes, index=column.index, dtype=float).where(column.notna())
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span > 0 else numbers * 0 + 0.5
