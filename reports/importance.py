"""How much each searched setting mattered, by fANOVA and PED-ANOVA, with bootstrap intervals."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.study import Study

VERSION = 1
"""Raised whenever equal trials would give another importance."""
FEWEST = 10
"""Completed trials below which importance says nothing."""
TREES = 40
LEAVES = 64
DRAWN = 1000
"""Trials drawn for a tree at most; a smaller bootstrap sample makes the interval wider, not
narrower."""
RESAMPLES = 100
TOP = 0.1
"""Share of the best trials that PED-ANOVA compares with all."""
BINS = 8

Array = np.ndarray[Any, Any]


def importance_rows(trials: pd.DataFrame, study: Study) -> tuple[list[dict[str, Any]], str]:
    """Rows of IMPORTANCE_COLUMNS, largest first within a method, and a sentence where none.

    A conditional axis is judged on the trials in which it was active, beside the axes that these
    trials have in common; its share is that of the variance among them.
    """
    objective = study.objectives[0]
    done = trials[trials["left_out"] == ""]
    if len(done) < FEWEST:
        return [], f"Importance needs {FEWEST} completed trials, there are {len(done)}."
    if done[objective.metric].nunique() == 1:
        return [], f"Importance is not defined: {objective.metric} is the same in all trials."
    done = first_of(done)
    axes = [a for a in study.axes if a in done and done[a].nunique() > 1]
    groups: dict[tuple[bool, ...], list[str]] = {}
    for axis in axes:  # axes that are active together share one forest
        groups.setdefault(tuple(done[axis].notna()), []).append(axis)
    rows = []
    for mask, judged in groups.items():
        active = done[list(mask)]
        columns = [a for a in axes if active[a].notna().all() and active[a].nunique() > 1]
        wanted = [columns.index(a) for a in judged if a in columns]
        if len(active) < FEWEST or not wanted or active[objective.metric].nunique() == 1:
            continue
        logs = {a for a in columns if study.axes[a].get("log")}
        x = np.column_stack([_numbers(active[a], a in logs) for a in columns])
        y = active[objective.metric].to_numpy(float) * (1 if objective.maximize else -1)
        common = {"metric": objective.metric, "n": len(active)}
        for method, judge in (("fanova", fanova), ("ped_anova", ped_anova)):
            for place, share in zip(wanted, judge(x, y, wanted), strict=True):
                rows.append({"axis": columns[place], "method": method, **common, **share})
    if not rows:
        return [], f"No axis was active in {FEWEST} completed trials; importance is left out."
    return sorted(rows, key=lambda r: (r["method"], -r["importance"])), ""


def first_of(used: pd.DataFrame) -> pd.DataFrame:
    """The first used trials, of thousands a whole number of hundreds.

    So a few new trials among many leave the importance as it was, and `n` says how many it is of.
    """
    return used.head(len(used) // 100 * 100) if len(used) >= 1000 else used


def identity(trials: pd.DataFrame, study: Study) -> str:
    """Checksum of all that the importance depends on."""
    done = first_of(trials[trials["left_out"] == ""])
    columns = [c for c in (*study.axes, study.objectives[0].metric) if c in done]
    rows = pd.util.hash_pandas_object(done[columns], index=False).to_numpy()
    about = json.dumps([VERSION, list(columns), study.document.get("space")], sort_keys=True)
    return f"{zlib.crc32(rows.tobytes(), zlib.crc32(about.encode())):08x}-{len(done)}"


def fanova(x: Array, y: Array, wanted: Sequence[int]) -> list[dict[str, Any]]:
    """Share of a random forest's variance that one axis alone explains.

    Each tree is grown on a bootstrap sample, and its marginals are exact integrals over its leaves;
    the interval holds 95 % of the trees. Where the objective is shuffled, the same gives the share
    that chance explains.

    Args:
        x: (trials, axes), finite.
        y: (trials,), not constant.
        wanted: Axes to judge.

    Returns:
        For each wanted axis importance, low, high, null_high and is_distinct.

    Source:
        F. Hutter, H. Hoos, K. Leyton-Brown: "An efficient approach for assessing hyperparameter
        importance", ICML 2014, Algorithm 2.
    """
    variances, totals = _tree_variances(x, y, wanted, TREES)
    shuffled, _ = _tree_variances(x, np.random.default_rng(0).permutation(y), wanted, TREES // 2)
    shares, null = variances / totals[:, None], shuffled / totals.mean()
    return [_summary(shares[:, k].mean(), shares[:, k], null[:, k]) for k in range(len(wanted))]


def ped_anova(x: Array, y: Array, wanted: Sequence[int]) -> list[dict[str, Any]]:
    """How far the best tenth of the trials is from all of them along one axis.

    The Pearson divergence of the two histograms, as a share of its sum over the axes in `x`.

    Source:
        S. Watanabe, A. Bansal, F. Hutter: "PED-ANOVA: efficiently quantifying hyperparameter
        importance in arbitrary subspaces", IJCAI 2023, Eq. 16 with the whole space as subspace.
    """
    random = np.random.default_rng(0)
    bins = [_bins(x[:, k]) for k in range(x.shape[1])]
    order = np.argsort(-y, kind="stable")
    ones = np.ones(len(y))
    observed = _divergences(bins, order, ones)
    total = max(float(observed.sum()), 1e-300)
    draws, null = [], []
    for _ in range(RESAMPLES):
        counts = random.multinomial(len(y), ones / len(y)).astype(float)
        drawn = _divergences(bins, order, counts)
        draws.append(drawn / max(float(drawn.sum()), 1e-300))
        null.append(_divergences(bins, random.permutation(order), ones) / total)
    draws_all, null_all = np.array(draws), np.array(null)
    return [_summary(observed[k] / total, draws_all[:, k], null_all[:, k]) for k in wanted]


def _summary(value: float, draws: Array, null: Array) -> dict[str, Any]:
    low, high = np.percentile(draws, [2.5, 97.5])
    limit = np.percentile(null, 95)
    return {
        "importance": float(value),
        "low": float(low),
        "high": float(high),
        "null_high": float(limit),
        "is_distinct": bool(low > limit),
    }


def _tree_variances(
    x: Array, y: Array, wanted: Sequence[int], num_trees: int
) -> tuple[Array, Array]:
    """Variance of each tree's marginals (trees, wanted) and of itself (trees,) over x's box."""
    # takes as long to load as all else together, and a refresh seldom needs it
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        num_trees,
        max_leaf_nodes=LEAVES,
        max_samples=min(1.0, DRAWN / len(y)),
        max_features=0.7,
        random_state=0,
        n_jobs=1,
    ).fit(x, y)
    box = np.stack([x.min(axis=0), x.max(axis=0)])
    found = [_variances(estimator.tree_, box, wanted) for estimator in forest.estimators_]
    return np.array([one[:-1] for one in found]), np.array([one[-1] for one in found])


def _variances(tree: Any, box: Array, wanted: Sequence[int]) -> list[float]:
    """Of each wanted marginal, then of the whole tree."""
    low, high, values = _leaves(tree, box)
    sizes = (high - low) / (box[1] - box[0])
    weight = sizes.prod(axis=1)
    mean = float(weight @ values)
    found = []
    for k in wanted:
        edges = np.unique(np.concatenate([low[:, k], high[:, k]]))
        middle = (edges[1:] + edges[:-1]) / 2
        inside = (low[:, k, None] < middle) & (middle < high[:, k, None])
        others = np.delete(sizes, k, axis=1).prod(axis=1)
        marginal = (others * values) @ inside
        share = np.diff(edges) / (box[1, k] - box[0, k])
        found.append(float(share @ (marginal - mean) ** 2))
    # A tree of one leaf explains nothing: 0 of 1.
    return [*found, float(weight @ (values - mean) ** 2) or 1.0]


def _leaves(tree: Any, box: Array) -> tuple[Array, Array, Array]:
    """Lower and upper corners (leaves, axes) and values (leaves,) of a tree's leaves."""
    left, right, feature, threshold = (
        tree.children_left, tree.children_right, tree.feature, tree.threshold,
    )  # fmt: skip
    low = np.tile(box[0], (tree.node_count, 1))
    high = np.tile(box[1], (tree.node_count, 1))
    for node in range(tree.node_count):  # sklearn numbers a node before its children
        if left[node] < 0:
            continue
        for child, bound in ((left[node], high), (right[node], low)):
            low[child], high[child] = low[node], high[node]
            bound[child, feature[node]] = threshold[node]
    leaves = left < 0
    return low[leaves], high[leaves], tree.value[leaves, 0, 0]


def _divergences(bins: Sequence[Array], order: Array, counts: Array) -> Array:
    """Pearson divergence along each axis of the best `TOP` of the counted trials from all."""
    weights = counts[order]
    best = np.zeros(len(order))
    best[order] = weights * (np.cumsum(weights) <= max(1.0, TOP * weights.sum()))
    found = []
    for column in bins:
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
