"""Parallel coordinates: every completed trial as a line over the searched settings."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.plots.base import WIDTH, Tables, methods_label, sentence

TITLE = "Parallel coordinates"


def prepare(tables: Tables) -> pd.DataFrame:
    """Searched settings and the objective of completed trials, each scaled to [0, 1]."""
    metric = tables.study.objectives[0].metric
    trials = tables.trials
    if metric not in trials:
        return pd.DataFrame()
    done = trials[(trials["status"] == "completed") & trials[metric].notna()]
    axes = [a for a in tables.study.axes if a in done and done[a].nunique() > 1]
    log = {a for a in axes if tables.study.axes[a].get("log")}
    return pd.DataFrame({a: _scaled(done[a], a in log) for a in [*axes, metric]})


def draw(data: pd.DataFrame, tables: Tables) -> Figure:
    """Lines coloured by the objective; a setting that a trial does not have interrupts its line."""
    if len(data) < 2 or data.shape[1] < 2:
        return sentence("Parallel coordinates need two completed trials and a searched setting.")
    figure = Figure(figsize=(2 * WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    colour = matplotlib.colormaps["viridis"]
    for row in data.sort_values(data.columns[-1]).to_numpy(float):
        axes.plot(range(data.shape[1]), row, color=colour(row[-1]), lw=0.9, alpha=0.8, marker=".")
    axes.set_xticks(range(data.shape[1]), data.columns, rotation=30, ha="right")
    axes.set_yticks([0, 1], ["lowest", "highest"])
    return figure


def _scaled(column: pd.Series, log: bool) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.astype(float)
        if log:
            numbers = numbers.map(np.log)
    else:
        labels = column.map(methods_label, na_action="ignore")
        codes, _ = pd.factorize(labels, sort=True)
        numbers = pd.Series(codes, index=column.index, dtype=float).where(column.notna())
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span > 0 else numbers * 0 + 0.5
