"""How much of a search's variation each setting explains, with bootstrap intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from reports.study import Study

FEWEST = 10
"""Completed trials below which importance says nothing."""
BOOTSTRAPS = 30
TREES = 24
SAMPLES = 64

MEANING = {
    "axis": ("", "searched setting"),
    "importance": ("fraction", "share of the objective's variance that the axis alone explains"),
    "low": ("fraction", "95 % bootstrap interval over trials"),
    "high": ("fraction", "same"),
    "n": ("", "completed trials in which the axis was active"),
    "is_distinct": ("", "the interval lies above the median importance of a shuffled objective"),
}


def importance_table(trials: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, str]:
    """Importance of every axis, largest first, and a sentence where there is none.

    The variance of a random forest's marginal prediction along one axis, over the variance of its
    predictions. A conditional axis is judged on the trials in which it was active.

    Source:
        Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance
        (ICML 2014), single axes; marginals are averaged over the trials instead of the whole box.
    """
    metric = study.objectives[0].metric
    empty = pd.DataFrame(columns=list(MEANING))
    done = trials[(trials["status"] == "completed") & trials[metric].notna()]
    if len(done) < FEWEST:
        return empty, f"Importance needs {FEWEST} completed trials, there are {len(done)}."
    if done[metric].nunique() == 1:
        return empty, f"Importance is not defined: {metric} is the same in all trials."
    axes = [a for a in study.axes if a in done and done[a].nunique() > 1]
    rows = []
    for axis in axes:
        active = done[done[axis].notna()]
        if len(active) < FEWEST:
            continue
        columns = [a for a in axes if active[a].notna().all()]
        rows.append({"axis": axis, **_with_interval(active, columns, axis, metric)})
    if not rows:
        return empty, f"No axis was active in {FEWEST} completed trials; importance is left out."
    return pd.DataFrame(rows).sort_values("importance", ascending=False, ignore_index=True), ""


def _with_interval(
    trials: pd.DataFrame, columns: Sequence[str], axis: str, metric: str
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = np.column_stack([_numbers(trials[c]) for c in columns])
    y = trials[metric].to_numpy(float)
    index = columns.index(axis)
    draws, null = [], []
    for _ in range(BOOTSTRAPS):
        rows = random.integers(len(y), size=len(y))
        draws.append(_share(x[rows], y[rows], index, random))
        null.append(_share(x[rows], random.permutation(y[rows]), index, random))
    low, high = np.percentile(draws, [2.5, 97.5])
    return {
        "importance": _share(x, y, index, random),
        "low": low,
        "high": high,
        "n": len(y),
        "is_distinct": bool(low > np.median(null)),
    }


def _share(x: Any, y: Any, index: int, random: np.random.Generator) -> float:
    """Variance of the forest's marginal along one column over that of its predictions."""
    if np.ptp(y) == 0 or np.ptp(x[:, index]) == 0:
        return 0.0
    forest = RandomForestRegressor(TREES, random_state=int(random.integers(2**31)), n_jobs=1)
    forest.fit(x, y)
    total = forest.predict(x).var()
    levels = np.unique(np.quantile(x[:, index], np.linspace(0, 1, 9), method="nearest"))
    rest = x[random.integers(len(x), size=min(SAMPLES, len(x)))]
    grid = np.repeat(rest[None], len(levels), axis=0)
    grid[:, :, index] = levels[:, None]
    marginal = forest.predict(grid.reshape(-1, x.shape[1])).reshape(len(levels), -1).mean(1)
    return float(min(1.0, marginal.var() / total)) if total > 0 else 0.0


def _numbers(column: pd.Series) -> Any:
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(float)
    return pd.factorize(column, sort=True)[0].astype(float)
