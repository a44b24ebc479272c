"""How much each searched setting mattered, by fANOVA and PED-ANOVA, with bootstrap intervals.

Besides the shares: how the objective changes along each setting (marginals), and what two settings
explain together but not alone (interactions).
"""

import json
import zlib
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from reports.labels import NewRow, methods_label
from reports.records.study import Study
from reports.statistics.forest import Forest

VERSION = 3
"""Raised whenever equal trials would give another importance."""
MIN_POINTS = 10
"""Completed points that importance needs."""
TREES = 40
RESAMPLES = 100
TOP = 0.1
"""Share of the best points that PED-ANOVA compares with all."""
BINS = 8
GRID = 25
"""Points of a marginal along a number."""
NULL_POINTS = 2000
"""Points from which the interactions of chance are estimated."""
PAIRS = 3
"""Interactions that are drawn: the largest ones."""

Array = np.ndarray[Any, Any]
Rows = dict[str, list[NewRow]]
"""Rows by table: importance, marginals, interactions."""


def importance_tables(trials: pd.DataFrame, study: Study) -> tuple[Rows, str]:
    """Rows of the three tables, largest share first, and a sentence where there are none.

    Replicates are averaged first: they are one point, however often its noise was drawn. A
    conditional axis is judged on the points in which it was active, together with the axes that
    these points have in common; its share is that of the variance among them.
    """
    rows: Rows = {"importance": [], "marginals": [], "interactions": []}
    objective = study.objectives[0]
    done = points_of(trials, objective.metric)
    if len(done) < MIN_POINTS:
        return rows, f"Importance needs {MIN_POINTS} completed points, there are {len(done)}."
    if done[objective.metric].nunique() == 1:
        return rows, f"Importance is not defined: {objective.metric} is the same in all points."
    done = first_of(done)
    axes = [a for a in study.axes if a in done and done[a].nunique() > 1]
    # A forest cannot take missing values, so conditional axes get forests of their own.
    groups: dict[tuple[bool, ...], list[str]] = {}
    for axis in axes:  # axes that are active together share one forest
        groups.setdefault(tuple(done[axis].notna()), []).append(axis)
    for mask, judged in groups.items():
        active = done[list(mask)]
        columns = [a for a in axes if active[a].notna().all() and active[a].nunique() > 1]
        wanted = [columns.index(a) for a in judged if a in columns]
        if len(active) < MIN_POINTS or not wanted or active[objective.metric].nunique() == 1:
            continue
        for table, found in _judge(active, columns, wanted, study).items():
            rows[table] += found
    if not rows["importance"]:
        return rows, f"No axis was active in {MIN_POINTS} completed points; importance is left out."
    rows["importance"].sort(key=lambda row: (row["method"], -row["importance"]))
    rows["interactions"].sort(key=lambda row: -row["importance"])
    for row in rows["interactions"][PAIRS:]:
        row["grid"] = None
    return rows, ""


def _judge(active: pd.DataFrame, columns: list[str], wanted: list[int], study: Study) -> Rows:
    """Rows for some axes from the points in which they were active."""
    objective = study.objectives[0]
    logs = {a for a in columns if study.axes[a].get("log")}
    x = np.column_stack([_numbers(active[a], a in logs) for a in columns])
    y = active[objective.metric].to_numpy(float)
    words = {k: _categories(active[a]) for k, a in enumerate(columns)}
    box = np.stack([x.min(axis=0), x.max(axis=0)])
    for k, found in words.items():  # every category is as wide as another
        box[:, k] += (-0.5, 0.5) if found else (0, 0)
    # Integrals are over the box that was searched in fact, not over the space's ranges.
    forest, shadowed = Forest.grow(x, y, box, TREES), _shadowed(x, y, box)
    common = {"metric": objective.metric, "n": len(active)}
    shares = {
        "fanova": _shares(forest, shadowed, wanted),
        "ped_anova": ped_anova(x, objective.sign * y, wanted, np.arange(len(x))),
    }
    rows: Rows = {"importance": [], "marginals": [], "interactions": []}
    for method, judged in shares.items():
        for k, share in zip(wanted, judged, strict=True):
            rows["importance"].append({"axis": columns[k], "method": method, **common, **share})
    grids = [_grid(box[:, k], words[k], columns[k] in logs) for k in range(len(columns))]
    for k in wanted:
        places, shown, names = grids[k]
        drawn = forest.marginal(k, places)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        for at, point in enumerate(zip(shown, names, strict=True)):
            row = {"axis": columns[k], "value": float(point[0]), "label": point[1], **common}
            rows["marginals"].append(
                {**row, "mean": float(drawn[:, at].mean()), "low": low[at], "high": high[at]}
            )
    pairs = [p for p in combinations(range(len(columns)), 2) if set(p) & set(wanted)]
    for (a, b), share in zip(pairs, _interactions(forest, x, y, pairs), strict=True):
        surface = forest.pair_marginal(a, b, grids[a][0], grids[b][0]).round(6).tolist()
        grid = {"x": grids[a][1], "y": grids[b][1], "x_labels": grids[a][2],
                "y_labels": grids[b][2], "mean": surface}  # fmt: skip
        row = {"axis": columns[a], "other": columns[b], "grid": json.dumps(grid)}
        rows["interactions"].append({**row, **common, **share})
    return rows


def points_of(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Used trials with their replicates averaged: one row per point, in the order planned."""
    used = trials[trials["left_out"] == ""]
    point = used["point"].where(used["point"].notna(), used.index)  # an unknown one is its own
    means = used[metric].groupby(point, sort=False).mean()
    return used[~point.duplicated()].assign(**{metric: means.to_numpy()})


def first_of(used: pd.DataFrame) -> pd.DataFrame:
    """The first used trials or points, of thousands a whole number of hundreds.

    So a few new ones among many leave the importance as it was; column `n` has their number.
    """
    return used.head(len(used) // 100 * 100) if len(used) >= 1000 else used


def identity(trials: pd.DataFrame, study: Study) -> str:
    """Checksum of all that the importance depends on."""
    done = first_of(points_of(trials, study.objectives[0].metric))
    columns = [c for c in (*study.axes, study.objectives[0].metric) if c in done]
    rows = pd.util.hash_pandas_object(done[columns], index=False).to_numpy()
    about = json.dumps([VERSION, list(columns), study.document.get("space")], sort_keys=True)
    return f"{zlib.crc32(rows.tobytes(), zlib.crc32(about.encode())):08x}-{len(done)}"


def fanova(x: Array, y: Array, wanted: Sequence[int], points: Array | None = None) -> list[NewRow]:
    """Share of a random forest's variance that one axis alone explains.

    Each tree is grown on a bootstrap sample, and its marginals are exact integrals over its leaves;
    the interval holds 95 % of the trees. What chance explains is measured with shadows: another
    forest also gets a shuffled copy of every axis, and what the copy explains is chance.

    Args:
        x: (rows, axes), finite.
        y: (rows,), not constant.
        wanted: Axes to judge.
        points: Which point each row is a replicate of (rows,); None: equal rows of `x` are one.

    Returns:
        For each wanted axis importance, low, high, null_high and is_distinct.

    Source:
        See `reports.statistics.forest`. Shadows: M. Kursa, W. Rudnicki, "Feature selection with
        the Boruta package", J. Stat. Softw. 36 (2010), section 2.
    """
    x, y = _averaged(x, y, points)
    box = np.stack([x.min(axis=0), x.max(axis=0)])
    return _shares(Forest.grow(x, y, box, TREES), _shadowed(x, y, box), wanted)


def _averaged(x: Array, y: Array, points: Array | None) -> tuple[Array, Array]:
    """One row for each point, in the order met, with the mean of its replicates.

    Replicates share their settings, so as rows of their own they would make chance look like a
    pattern in as many trials.
    """
    keys = x if points is None else points[:, None]
    _, first, code = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    means = np.bincount(code.ravel(), y) / np.bincount(code.ravel())
    # np.unique sorts; the order met is kept, since forests draw their samples by place.
    order = np.argsort(first)
    return x[first[order]], means[order]


def _shadowed(x: Array, y: Array, box: Array) -> Forest:
    """A forest over the axes and, behind them, a shuffled copy of each."""
    random = np.random.default_rng(0)
    copies = np.column_stack([random.permutation(column) for column in x.T])
    return Forest.grow(np.hstack([x, copies]), y, np.hstack([box, box]), TREES)


def _shares(forest: Forest, shadowed: Forest, wanted: Sequence[int]) -> list[NewRow]:
    num_axes = forest.box.shape[1]
    shares = forest.main_effects(wanted)
    chance = shadowed.main_effects([k + num_axes for k in wanted])
    return [_summary(shares[:, k].mean(), shares[:, k], chance[:, k]) for k in range(len(wanted))]


def _interactions(
    forest: Forest, x: Array, y: Array, pairs: Sequence[tuple[int, int]]
) -> list[NewRow]:
    """The same for what two axes explain together but not alone.

    Trees turn a slope into steps, which look like an interaction. So chance is what a forest finds
    where there is none: in the sum of the marginals, with the residuals shuffled.
    """
    if not pairs:
        return []
    # The marginals at each point cost trees x leaves; 2,000 points estimate chance well enough.
    x, y = x[:NULL_POINTS], y[:NULL_POINTS]
    along = [forest.marginal(k, x[:, k]).mean(axis=0) for k in range(x.shape[1])]
    additive = np.sum(along, axis=0) - (len(along) - 1) * np.mean(along)
    # A fixed seed: the same trials give the same importance, so a report can be repeated.
    residuals = np.random.default_rng(0).permutation(y - additive)
    null = Forest.grow(x, additive + residuals, forest.box, TREES)
    shares, chance = forest.interactions(pairs), null.interactions(pairs)
    return [_summary(shares[:, k].mean(), shares[:, k], chance[:, k]) for k in range(len(pairs))]


def ped_anova(
    x: Array, y: Array, wanted: Sequence[int], points: Array | None = None
) -> list[NewRow]:
    """How far the best tenth of the points is from all of them along one axis; as `fanova`.

    The Pearson divergence of the two histograms, as a share of its sum over the axes in `x`. What
    chance gives is measured by shuffling which trials are the best.

    Source:
        S. Watanabe, A. Bansal, F. Hutter: "PED-ANOVA: efficiently quantifying hyperparameter
        importance in arbitrary subspaces", IJCAI 2023, Eq. 16 with the whole space as subspace.
    """
    x, y = _averaged(x, y, points)
    random = np.random.default_rng(0)
    bins = [_bins(x[:, k]) for k in range(x.shape[1])]
    order = np.argsort(-y, kind="stable")
    ones = np.ones(len(y))
    observed = _divergences(bins, order, ones)
    # Where no axis matters at all each share is 0, not 0 / 0.
    total = max(float(observed.sum()), 1e-300)
    draws, null = [], []
    for _ in range(RESAMPLES):
        counts = random.multinomial(len(y), ones / len(y)).astype(float)
        drawn = _divergences(bins, order, counts)
        draws.append(drawn / max(float(drawn.sum()), 1e-300))
        null.append(_divergences(bins, random.permutation(order), ones) / total)
    draws_all, null_all = np.array(draws), np.array(null)
    return [_summary(observed[k] / total, draws_all[:, k], null_all[:, k]) for k in wanted]


def _summary(value: float, draws: Array, null: Array) -> NewRow:
    low, high = np.percentile(draws, [2.5, 97.5])
    limit = np.percentile(null, 95)
    return {
        "importance": float(value),
        "low": float(low),
        "high": float(high),
        "null_high": float(limit),
        "is_distinct": bool(low > limit),
    }


def _divergences(bins: Sequence[Array], order: Array, counts: Array) -> Array:
    """Pearson divergence along each axis of the best `TOP` of the counted points from all."""
    weights = counts[order]
    best = np.zeros(len(order))
    best[order] = weights * (np.cumsum(weights) <= max(1.0, TOP * weights.sum()))
    found = []
    for column in bins:
        # One count spread over the bins, so that an empty one does not divide by zero.
        everything = np.bincount(column, counts, minlength=BINS) + 1 / BINS
        top = np.bincount(column, best, minlength=BINS) + 1 / BINS
        p, q = top / top.sum(), everything / everything.sum()
        found.append(float((((p / q) - 1) ** 2 * q).sum()))
    return np.array(found)


def _bins(column: Array) -> Array:
    """Bin of each value: its rank among few values, else equally many values a bin."""
    values = np.unique(column)
    if len(values) <= BINS:
        return np.searchsorted(values, column)
    edges = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, column, side="right")


def _numbers(column: pd.Series, log: bool) -> Array:
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return pd.factorize(column, sort=True)[0].astype(float)
    numbers = column.to_numpy(float)
    return np.log(numbers) if log else numbers


def _categories(column: pd.Series) -> list[str]:
    """Labels of a column's codes in `_numbers`; [] for a number."""
    if not pd.api.types.is_bool_dtype(column) and pd.api.types.is_numeric_dtype(column):
        return []
    return [methods_label(value) for value in pd.factorize(column, sort=True)[1]]


def _grid(ends: Array, words: Sequence[str], log: bool) -> tuple[Array, list[float], list[str]]:
    """Points along an axis: in the forest's measure, as shown, and as words ("" for numbers)."""
    if words:
        codes = np.arange(len(words), dtype=float)
        return codes, codes.tolist(), list(words)
    places = np.linspace(ends[0], ends[1], GRID)
    return places, (np.exp(places) if log else places).tolist(), [""] * GRID
