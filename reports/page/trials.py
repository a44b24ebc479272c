"""Every trial for the page: the columns of its table, of which figures and filter are made, too."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports.columns import TRIAL_COLUMNS
from reports.frames import Frames
from reports.labels import group_column, methods_label, number
from reports.summary import ReportSummary
from reports.tables import last_epochs, varied
from tcpa_core.record.scores import fields_of, is_share

REPLAY = "tcpa replay {study} {trial}"
"""The command that runs a trial again."""
IF_VARIED = ("seed", "best_epoch", "from_epoch", "num_epochs", "num_trainable", "flops_per_image",
             "duration_s", "peak_memory_bytes", "device")  # fmt: skip
"""Shown where they differ between trials."""
IF_ANY = ("reason", "deviation", "reused_from", "from_trial")
"""Shown wherever there is one, as are values on test."""
COSTS = ("num_trainable", "flops_per_image", "duration_s", "peak_memory_bytes")
FEW = 200
"""Different texts of a column up to which each is written once."""


def shown_trials(found: Frames, summary: ReportSummary) -> pd.DataFrame:
    """The table of trials as the page shows it.

    Of a search, test values are shown for the selected setting only. A trial that was stopped says
    after which epoch. In an ablation, column `level` names what each trial stands for.
    """
    trials = found.trials
    if summary.selected:
        chosen = trials["trial"].isin(summary.selected.trials)
        # Test values of all trials side by side would invite choosing by them.
        on_test = [name for name in fields_of(found.study.score) if name.startswith("test_")]
        trials = trials.assign(**{name: trials[name].where(chosen) for name in on_test})
    stopped = (trials["status"] == "pruned") & trials["num_epochs"].notna()
    after = "stopped after epoch " + last_epochs(trials).astype("Int64").astype(str)
    reason = trials["reason"].fillna("")
    trials = trials.assign(reason=reason.where(~stopped | (reason != ""), after))
    if found.study.kind == "ablation":
        trials = trials.assign(level=group_column(trials))
    return trials


def trial_data(found: Frames, summary: ReportSummary) -> dict[str, Any]:
    """What the page's script shows: every column that differs between trials, searched ones first.

    The `values` of a column of few different texts are their places in its `levels`.
    """
    trials = shown_trials(found, summary)
    about = {column.name: column for column in TRIAL_COLUMNS}
    searched = searched_columns(found)
    names = _names(found, trials, searched)
    columns = []
    for name in names:
        column = about.get(name)
        columns.append({
            "name": name,
            "unit": "%" if is_share(name) else column.unit if column else "",
            "meaning": column.meaning if column else f"setting {name}",
            "log": bool((found.study.axes.get(name) or {}).get("log")),
            **_encoded(_plain(trials[name], name)),
        })  # fmt: skip
    objective = found.study.objectives[0]
    selected = summary.selected.trials if summary.selected else ()
    return {
        "columns": columns,
        "settings": varied(trials, found.settings),
        "searched": searched,
        "constants": constants(found, trials, names),
        "costs": [cost for cost in COSTS if trials[cost].nunique() > 1],
        "objective": objective.metric,
        "maximize": objective.maximize,
        "is_search": found.study.kind == "search",
        "selected": np.flatnonzero(trials["trial"].isin(selected)).tolist(),
        "group": _encoded(list(group_column(trials))),
        "replay": REPLAY.format(study=summary.name, trial="{trial}"),
    }


def searched_columns(found: Frames) -> list[str]:
    """Searched settings that differ between trials, methods first; in an ablation its levels."""
    if found.study.kind == "ablation":
        return ["level"]
    axes = [axis for axis in found.study.axes if axis in found.settings]
    axes.sort(key=lambda axis: axis != "methods")
    return [axis for axis in axes if found.trials[axis].nunique(dropna=False) > 1]


def constants(
    found: Frames, trials: pd.DataFrame, shown: Iterable[str]
) -> list[tuple[str, str, bool]]:
    """Settings and results that are the same in all trials that have them: name, value, all have.

    A setting of one method that no trial varies is among them, other methods' trials lack it.

    Args:
        shown: Columns that the table has.
    """
    rows, known = [], {*shown}
    for name in (*IF_VARIED, *found.settings):
        if name in known:
            continue
        values = trials[name].dropna()
        if values.nunique() == 1:
            value = methods_label(values.iloc[0]) if name == "methods" else values.iloc[0]
            rows.append((name, number(value), len(values) == len(trials)))
    return rows


def _names(found: Frames, trials: pd.DataFrame, searched: Iterable[str]) -> list[str]:
    """Columns of the page's table in their order."""
    scores = fields_of(found.study.score)
    if_any = (*IF_ANY, *(name for name in scores if name.startswith("test_")))
    said = {c for c in if_any if (trials[c].notna() & (trials[c] != "")).any()}
    objectives = [one.metric for one in found.study.objectives if one.metric in trials]
    settings = [s for s in found.settings if trials[s].nunique() > 1]
    results = [
        c for c in IF_VARIED if trials[c].notna().any() and trials[c].nunique(dropna=False) > 1
    ]
    order = ["trial", "status", "from_trial", "reason", *objectives, *scores, *searched,
             *settings, *results, "deviation"]  # fmt: skip
    return [c for c in dict.fromkeys(order) if c not in if_any or c in said]


def _plain(column: pd.Series, name: str) -> list[Any]:
    """Values for JSON: shares in percent, numbers with six digits, missing ones null."""
    if pd.api.types.is_bool_dtype(column):
        return [None if v is pd.NA else bool(v) for v in column]
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(float, na_value=np.nan)
        if is_share(name):
            numbers = 100 * numbers
        return [_digits(v) for v in numbers.tolist()]
    labels: Mapping[Any, Any] = {v: methods_label(v) if name == "methods" else v
                                 for v in column.dropna().unique()}  # fmt: skip
    return [labels.get(v) if isinstance(v, str) else None for v in column]


def _encoded(values: list[Any]) -> dict[str, list[Any]]:
    """The values; of a few different texts their places in `levels`."""
    if any(v is not None and not isinstance(v, str) for v in values):
        return {"values": values}
    places = {v: k for k, v in enumerate(dict.fromkeys(v for v in values if v is not None))}
    if len(places) > min(FEW, len(values) // 2):
        return {"values": values}
    return {"levels": list(places), "values": [None if v is None else places[v] for v in values]}


def _digits(value: float) -> float | int | None:
    # JSON has neither NaN nor infinity
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")
