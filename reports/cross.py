"""Across datasets: mean ranks with critical differences, and the group means of VTAB."""

import json
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from reports.stats import holm
from reports.study import Study
from reports.text import methods_label

VTAB_GROUPS: Mapping[str, tuple[str, ...]] = {
    "natural": (
        "caltech101", "cifar", "dtd", "oxford_flowers102", "oxford_iiit_pet", "sun397", "svhn",
    ),
    "specialized": ("diabetic_retinopathy", "eurosat", "patch_camelyon", "resisc45"),
    "structured": (
        "clevr_count", "clevr_dist", "dmlab", "dsprites_loc", "dsprites_ori", "kitti",
        "smallnorb_azi", "smallnorb_ele",
    ),
}  # fmt: skip
"""Tasks of VTAB-1k by their usual folder names. Source: arXiv:1910.04867, section 3."""
MEAN_OF_TASKS = "mean of 19 tasks"
MEAN_OF_GROUPS = "mean of groups"
FAMILY_ERROR = 0.05


def dataset_of(trials: pd.DataFrame) -> pd.Series:
    """The data set of each trial: the folder's name where it has one, else `data.name`."""
    name = trials.get("data.name", pd.Series("", index=trials.index)).astype(object)
    if "data.root" not in trials:
        return name
    folder = trials["data.root"].map(lambda root: PurePath(root).name, na_action="ignore")
    return folder.astype(object).where(folder.notna(), name)


def scores(trials: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Value of each method (rows) on each dataset (columns): mean over seeds of its best setting.

    The setting is selected by that mean; where a study searched settings, the value is optimistic.
    """
    objective = study.objectives[0]
    used = trials[trials["left_out"] == ""]
    if used.empty or "methods" not in used:
        return pd.DataFrame()
    keys = [used["methods"].map(methods_label).rename("method"), dataset_of(used).rename("dataset")]
    points = used.groupby([*keys, "point"], sort=False)[objective.metric].mean()
    best = points.groupby(["method", "dataset"], sort=False)
    return (best.max() if objective.maximize else best.min()).unstack("dataset")


def rank_rows(table: pd.DataFrame, study: Study) -> tuple[list[dict[str, Any]], str]:
    """Rows of RANK_COLUMNS, best first, and a sentence where there are none.

    Friedman's test, Nemenyi's critical difference, and Wilcoxon's signed-rank test for each pair of
    methods with Holm over the pairs. Datasets that a method lacks are left out.

    Args:
        table: From `scores`.

    Source:
        J. Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006);
        pairs by Wilcoxon-Holm: A. Benavoli et al., JMLR 17 (2016).
    """
    whole = table.dropna(axis="columns")
    methods, n = list(whole.index), whole.shape[1]
    if len(methods) < 3 or n < 5:
        return [], (
            f"Ranks across datasets need 3 methods on 5 datasets that all of them have, there are "
            f"{len(methods)} on {n}."
        )
    objective = study.objectives[0]
    values = whole.to_numpy(float)
    ranks = scipy_stats.rankdata(-values if objective.maximize else values, axis=0)
    mean_ranks = ranks.mean(axis=1)
    pairs = list(combinations(range(len(methods)), 2))
    adjusted = holm([_wilcoxon(values[i] - values[j]) for i, j in pairs])
    same: dict[int, list[str]] = {i: [] for i in range(len(methods))}
    for (i, j), p in zip(pairs, adjusted, strict=True):
        if p is None or p >= FAMILY_ERROR:
            same[i].append(methods[j])
            same[j].append(methods[i])
    common = {
        "metric": objective.metric,
        "n": n,
        "friedman_p": friedman_p(values),
        "critical_difference": critical_difference(len(methods), n),
    }
    rows = [
        {"method": methods[i], "mean_rank": mean_ranks[i],
         "not_worse_than": json.dumps(same[i]), **common}
        for i in np.argsort(mean_ranks, kind="stable")
    ]  # fmt: skip
    return rows, ""


def friedman_p(values: Any) -> float:
    """Friedman's test, ties corrected; 1 where all methods are equal on every dataset.

    Args:
        values: (methods, datasets), at least 3 methods.
    """
    if (np.ptp(values, axis=0) == 0).all():
        return 1.0
    return float(scipy_stats.friedmanchisquare(*values).pvalue)


def critical_difference(num_methods: int, num_datasets: int) -> float:
    """Nemenyi: mean ranks that differ by more differ at 5 % (Demsar 2006, section 3.2.2)."""
    quantile = scipy_stats.studentized_range.ppf(1 - FAMILY_ERROR, num_methods, np.inf)
    return float(
        quantile / math.sqrt(2) * math.sqrt(num_methods * (num_methods + 1) / (6 * num_datasets))
    )


def group_rows(table: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """Rows of GROUP_COLUMNS; none unless a dataset is a VTAB task.

    A mean over fewer tasks than its name says would not be comparable, so a gap leaves it empty.
    """
    tasks = [task for group in VTAB_GROUPS.values() for task in group]
    if not any(task in table for task in tasks):
        return []
    rows: list[dict[str, Any]] = []
    for method, values in table.iterrows():
        means = []
        for group, members in {**VTAB_GROUPS, MEAN_OF_TASKS: tuple(tasks)}.items():
            found = values.reindex(members)
            missing = list(found.index[found.isna()])
            means.append(None if missing else float(found.mean()))
            rows.append(
                {"method": method, "group": group, "mean": means[-1],
                 "n": len(members) - len(missing), "missing": ", ".join(missing)}
            )  # fmt: skip
        three = [mean for mean in means[:-1] if mean is not None]
        whole = len(three) == len(VTAB_GROUPS)
        mean = sum(three) / len(three) if whole else None
        rows.append({**rows[-1], "group": MEAN_OF_GROUPS, "mean": mean})
    return [{"metric": study.objectives[0].metric, **row} for row in rows]


def _wilcoxon(differences: Any) -> float | None:
    if not np.any(differences):
        return None  # equal everywhere: nothing to test
    return float(scipy_stats.wilcoxon(differences).pvalue)
