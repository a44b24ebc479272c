"""What the page's script shows: every trial with its settings, values and costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports.columns import TRIAL_COLUMNS
from reports.frames import Frames
from reports.labels import group_column, methods_label
from reports.plots.base import styles_of
from reports.summary import ReportSummary
from reports.tables import varied

REPLAY = "tcpa replay {study} {trial}"
"""The command that runs a trial again."""
ALWAYS = ("trial", "status", "val_accuracy")
IF_VARIED = ("test_accuracy", "seed", "best_epoch", "num_trainable", "duration_s", "device",
             "deviation", "reason")  # fmt: skip
"""Shown where they differ between trials."""
COSTS = ("num_trainable", "flops_per_image", "duration_s", "peak_memory_bytes")


def trial_data(found: Frames, summary: ReportSummary) -> dict[str, Any]:
    """What the page's script shows: columns of the trial table, and points with their costs.

    Of a search, test values are shown for the selected setting only.
    """
    trials = found.trials
    if summary.selected:
        chosen = trials["trial"].isin(summary.selected.trials)
        # Test values of all trials side by side would invite choosing by them.
        trials = trials.assign(test_accuracy=trials["test_accuracy"].where(chosen))
    present = [c for c in IF_VARIED if (trials[c].notna() & (trials[c] != "")).any()]
    # others are left out where every trial has the same
    rare = ("reason", "deviation", "test_accuracy")  # shown wherever there is one
    differ = [c for c in present if c in rare or trials[c].nunique(dropna=False) > 1]
    settings = varied(trials, found.settings)
    head = [*ALWAYS, *(c for c in differ if c == "test_accuracy"), *settings]
    names = [*head, *(c for c in differ if c != "test_accuracy")]
    about = {column.name: column for column in TRIAL_COLUMNS}
    columns = []
    for name in names:
        column = about.get(name)
        columns.append({
            "name": name,
            "unit": "%" if name.endswith("accuracy") else column.unit if column else "",
            "meaning": column.meaning if column else f"setting {name}",
            "values": _plain(trials[name], name),
        })  # fmt: skip
    objective = found.study.objectives[0]
    costs = {cost: _plain(trials[cost], cost) for cost in COSTS if trials[cost].nunique() > 1}
    return {
        "columns": columns,
        "settings": settings,
        "costs": costs,
        "objective": objective.metric,
        "maximize": objective.maximize,
        "is_search": found.study.kind == "search",
        "value": _plain(trials[objective.metric], objective.metric),
        "groups": list(group_column(trials)),
        "styles": styles_of(found),
        "replay": REPLAY.format(study=summary.name, trial="{trial}"),
    }


def _plain(column: pd.Series, name: str) -> list[Any]:
    """Values for JSON: accuracies in percent, numbers with six digits, missing ones null."""
    if pd.api.types.is_bool_dtype(column):
        return [None if v is pd.NA else bool(v) for v in column]
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(float, na_value=np.nan)
        if name.endswith("accuracy"):
            numbers = 100 * numbers
        return [_digits(v) for v in numbers.tolist()]
    labels: Mapping[Any, Any] = {v: methods_label(v) if name == "methods" else v
                                 for v in column.dropna().unique()}  # fmt: skip
    return [labels.get(v) if isinstance(v, str) else None for v in column]


def _digits(value: float) -> float | int | None:
    # JSON has neither NaN nor infinity
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")
