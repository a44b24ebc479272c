"""Across data sets: means, differences and ranks of methods or levels, and the groups of VTAB.

Replicates are data sets here, each with the mean over its seeds and the difference paired by its
seeds. They have no common scale, so the test is Wilcoxon's, and ranks are given as well as means.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, count
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from reports.labels import NewRow, Row, methods_label
from reports.records.study import Study
from reports.statistics.ablation import seed_shifts
from reports.statistics.paired_tests import ERROR, Array, compare_paired, holm, paired_p, summarise
from reports.tables import ranking

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
METHODS = "methods"
"""Factor under which method chains are compared in a study whose design has no data sets."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Levels of one factor on several data sets."""

    factor: str
    metric: str
    table: pd.DataFrame
    """Mean over seeds: levels as rows and data sets as columns, in their order; NaN: a gap."""
    baseline: str
    """The level that others are compared with; "": there is none."""
    sign: int
    """1 where larger is better, else -1."""
    differences: pd.DataFrame | None = None
    """Of the same shape, to the baseline and paired by seed; None: those of `table`."""

    def whole(self) -> pd.DataFrame:
        """The data sets on which all levels have a mean, and a difference to the baseline."""
        lacks = self.table.isna().any()
        if self.differences is not None and self.baseline:
            lacks |= self.differences.drop(index=self.baseline).isna().any()
        return self.table.loc[:, ~lacks]


ONE_SET = (
    "aircraft", "caltech101", "cifar10", "cifar100", "cub", "dtd", "eurosat", "flowers102",
    "food101", "gtsrb", "imagenette", "nabirds", "pets", "resisc45", "stanford_cars",
    "stanford_dogs", "sun397", "svhn", "tiny_imagenet",
)  # fmt: skip
"""Values of data.name that read one data set, whatever its folder is called."""


def dataset_of(trials: pd.DataFrame) -> pd.Series:
    """The data set of each trial: `data.name` where that reads one data set or has no folder, else
    the folder's name."""
    name = trials.get("data.name", pd.Series("", index=trials.index)).astype(object)
    if "data.root" not in trials:
        return name
    folder = trials["data.root"].map(lambda root: PurePath(root).name, na_action="ignore")
    return folder.astype(object).where(folder.notna() & ~name.isin(ONE_SET), name)


def deviations(trials: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What differs from the claimed protocol and methods, by factor and level.

    Levels that differ in nothing are left out.
    """
    found: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    columns = [name for name in ("deviation", "cells", "methods") if name in trials]
    deviating = trials.loc[trials["deviation"] != "", columns].drop_duplicates()
    for trial in deviating.to_dict("records"):
        levels = [(cell["factor"], cell["level"]) for cell in json.loads(trial["cells"])]
        for level in (*levels, (METHODS, methods_label(trial.get("methods")))):
            found[level] |= dict.fromkeys(str(trial["deviation"]).split("; "))
    return {level: "; ".join(texts) for level, texts in found.items()}


def marked(rows: Sequence[Row], deviations: Mapping[tuple[str, str], str]) -> list[NewRow]:
    """Rows of factors and levels with the column `deviation`."""
    return [{**row, "deviation": deviations.get((row["factor"], row["level"]), "")} for row in rows]


def score_rows(ablation: Sequence[Row], trials: pd.DataFrame, study: Study) -> list[NewRow]:
    """Rows of SCORE_COLUMNS; none where there is one data set only.

    Args:
        ablation: Rows of ABLATION_COLUMNS; those of a design's data sets are taken over.
        trials: As in `trials`. Without such a design its methods are compared, each by its best
            setting on each data set, so where settings were searched the values are optimistic.
    """
    designed = [row for row in ablation if row["dataset"]]
    rows = designed or _method_rows(trials, study)
    return [dict(row) for row in rows] if len({row["dataset"] for row in rows}) > 1 else []


def _method_rows(trials: pd.DataFrame, study: Study) -> list[NewRow]:
    objective = study.objectives[0]
    if trials.empty or "methods" not in trials:
        return []
    names = trials["methods"].map(methods_label)
    values: dict[tuple[str, str], dict[int, float]] = {}
    """By seed, of each method and data set."""
    for (level, dataset), part in trials.groupby([names, dataset_of(trials)], sort=False):
        best = ranking(part, study).selected
        if best is not None:
            chosen = part[part["trial"].isin(best.trials)]
            found = zip(chosen["seed"].fillna(0), chosen[objective.metric], strict=True)
            values[str(level), str(dataset)] = {int(seed): float(value) for seed, value in found}
    # Methods that lack a seed on a data set are compared as levels of a design are.
    moved: dict[tuple[str, str], float] = {}
    for dataset in dict.fromkeys(dataset for _, dataset in values):
        places = [place for place in values if place[1] == dataset]
        shifts = seed_shifts([values[place] for place in places])
        moved |= dict(zip(places, shifts, strict=True))
    return [
        {"factor": METHODS, "level": level, "dataset": dataset, "is_baseline": False,
         "metric": objective.metric, "moved": moved[level, dataset],
         **asdict(summarise(list(found.values())).moved(moved[level, dataset]))}
        for (level, dataset), found in values.items()
    ]  # fmt: skip


def moved_notes(rows: Sequence[Row]) -> list[str]:
    """Sentences on the means of methods that lack seeds; levels of a design have their own."""
    return [
        f"The mean of {row['level']} on {row['dataset']} is moved by {row['moved']:+.4f}: what the "
        "seeds that it lacks are worth to the other methods."
        for row in rows
        if row.get("moved")
    ]


def scores_of(rows: pd.DataFrame, study: Study) -> list[Scores]:
    """The score table as one matrix for each factor and metric; those without a value left out."""
    objective = study.objectives[0]
    found = []
    for (factor, metric), part in rows.groupby(["factor", "metric"], sort=False):
        table = part.pivot(index="level", columns="dataset", values="mean").astype(float)
        # pivot sorts; the design's order is the reader's
        table = table.loc[part["level"].unique(), part["dataset"].unique()]
        if table.notna().any(axis=None):
            first = part["level"][part["is_baseline"].astype(bool)]
            baseline = "" if first.empty else str(first.iloc[0])
            sign = objective.sign if metric == objective.metric else 1  # the score on test
            paired = part.pivot(index="level", columns="dataset", values="diff").astype(float)
            differences = paired.reindex_like(table) if baseline else None
            found.append(Scores(str(factor), str(metric), table, baseline, sign, differences))
    return found


def rank_rows(scores: Scores) -> tuple[list[NewRow], str]:
    """Rows of RANK_COLUMNS in the order of the levels, and a sentence where tests are impossible.

    Source:
        J. Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006);
        pairs by Wilcoxon-Holm: A. Benavoli et al., JMLR 17 (2016).
    """
    whole = scores.whole()
    levels, n = list(whole.index), whole.shape[1]
    if n < 2 or len(levels) < 2:
        return [], (
            f"Ranks of {scores.factor} across data sets need 2 levels on 2 data sets that all of "
            f"them have, there are {len(levels)} on {n}."
        )
    # Only data sets that all levels have: others would compare means over different tasks.
    values = whole.to_numpy(float).round(12)  # equal but for rounding is a tie
    ranks = scipy_stats.rankdata(-scores.sign * values, axis=0).mean(axis=1)
    common: NewRow = {
        "factor": scores.factor,
        "metric": scores.metric,
        "n": n,
        "left_out": ", ".join(str(c) for c in scores.table if c not in whole),
    }
    same: list[list[str]] | None = None
    note = ""
    if len(levels) >= 3 and n >= 5:
        common["friedman_p"] = friedman_p(values)
        common["critical_difference"] = critical_difference(len(levels), n)
        same = _not_different(levels, values)
    else:
        note = (
            f"Tests between all levels of {scores.factor} across data sets need 3 levels on 5 data "
            f"sets that all of them have, there are {len(levels)} on {n}."
        )
    rows: list[NewRow] = []
    for i, level in enumerate(levels):
        row = {"level": level, "is_baseline": level == scores.baseline,
               "mean": float(values[i].mean()), "mean_rank": float(ranks[i])}  # fmt: skip
        row["not_worse_than"] = None if same is None else json.dumps(same[i])
        rows.append({**common, **row, **_difference(scores, whole, level)})
    p_values = [row.get("p") for row in rows]
    for row, adjusted in zip(rows, holm(p_values), strict=True):
        row |= {"p_holm": adjusted, "family": sum(p is not None for p in p_values)}
    return rows, note


def _difference(scores: Scores, whole: pd.DataFrame, level: str) -> NewRow:
    """A level against the baseline: the differences within each data set."""
    if level == scores.baseline or scores.baseline not in whole.index:
        return {}
    paired = scores.differences
    if paired is None:
        paired = whole - whole.loc[scores.baseline]
    differences: dict[Any, float] = paired[whole.columns].loc[level].to_dict()
    found = compare_paired(differences, dict.fromkeys(differences, 0.0), "wilcoxon")
    return {"diff": found.diff, "diff_low": found.low, "diff_high": found.high, "p": found.p,
            "interval": found.interval, "rank_biserial": found.rank_biserial}  # fmt: skip


def _not_different(levels: Sequence[str], values: Array) -> list[list[str]]:
    """For each level the others that Wilcoxon, after Holm over all pairs, finds not different."""
    pairs = list(combinations(range(len(levels)), 2))
    adjusted = holm([paired_p(values[i] - values[j], "wilcoxon") for i, j in pairs])
    same: list[list[str]] = [[] for _ in levels]
    for (i, j), p in zip(pairs, adjusted, strict=True):
        if p is None or p >= ERROR:
            same[i].append(levels[j])
            same[j].append(levels[i])
    return same


def fewest_for_pairs(num_methods: int) -> int:
    """Data sets from which on Wilcoxon's test after Holm can tell any pair of methods apart.

    Its smallest p, of n differences of one sign, is 2 / 2^n, times the number of pairs.
    """
    pairs = math.comb(num_methods, 2)
    return next(n for n in count(1) if pairs * 2.0 ** (1 - n) < ERROR)


def friedman_p(values: Array) -> float:
    """Friedman's test, ties corrected; 1 where all methods are equal on every dataset.

    Args:
        values: (methods, datasets), at least 3 methods.
    """
    # scipy divides by zero where all ranks are tied.
    if (np.ptp(values, axis=0) == 0).all():
        return 1.0
    return float(scipy_stats.friedmanchisquare(*values).pvalue)


def iman_davenport_p(values: Array) -> float:
    """Friedman's test with Iman and Davenport's F, which is less conservative (Demsar 2006, 3.2.2).

    Args:
        values: (methods, datasets), at least 3 methods on 2 data sets.

    Source:
        R. Iman and J. Davenport, Commun. Stat. A 9 (1980); of Friedman's statistic, ties corrected.
    """
    methods, n = values.shape
    if (np.ptp(values, axis=0) == 0).all():
        return 1.0
    chi2 = float(scipy_stats.friedmanchisquare(*values).statistic)
    rest = n * (methods - 1) - chi2
    if rest <= 1e-9 * chi2:  # the same order everywhere
        return 0.0
    f = (n - 1) * chi2 / rest
    return float(scipy_stats.f.sf(f, methods - 1, (methods - 1) * (n - 1)))


def critical_difference(num_methods: int, num_datasets: int) -> float:
    """Nemenyi: mean ranks that differ by more differ at 5 % (Demsar 2006, section 3.2.2)."""
    quantile = scipy_stats.studentized_range.ppf(1 - ERROR, num_methods, np.inf)
    return float(
        quantile / math.sqrt(2) * math.sqrt(num_methods * (num_methods + 1) / (6 * num_datasets))
    )


def group_rows(scores: Scores) -> list[NewRow]:
    """Rows of GROUP_COLUMNS; none unless a data set is a VTAB task.

    A mean over fewer tasks than its name says would not be comparable, so a gap leaves it empty.
    """
    # By the names of folders, which is how the usual downloads name the tasks.
    tasks = [task for group in VTAB_GROUPS.values() for task in group]
    if not any(task in scores.table for task in tasks):
        return []
    rows: list[NewRow] = []
    for level, values in scores.table.iterrows():
        means = []
        for group, members in {**VTAB_GROUPS, MEAN_OF_TASKS: tuple(tasks)}.items():
            found = values.reindex(members)
            missing = list(found.index[found.isna()])
            means.append(None if missing else float(found.mean()))
            rows.append(
                {"level": level, "group": group, "mean": means[-1],
                 "n": len(members) - len(missing), "missing": ", ".join(missing)}
            )  # fmt: skip
        three = [mean for mean in means[:-1] if mean is not None]
        # VTAB's own mean weighs the groups equally, however many tasks each has.
        whole = len(three) == len(VTAB_GROUPS)
        mean = sum(three) / len(three) if whole else None
        rows.append({**rows[-1], "group": MEAN_OF_GROUPS, "mean": mean})
    return [{"factor": scores.factor, "metric": scores.metric, **row} for row in rows]
