"""Ranks and group means across data sets, by hand and against scipy."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.cross import (
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    VTAB_GROUPS,
    critical_difference,
    friedman_p,
    group_rows,
    rank_rows,
)
from reports.plots.ranks import joined
from reports.study import Study

STUDY = Study({"name": "x", "kind": "ablation", "space": {}})


def test_critical_difference_of_demsar() -> None:
    # Demsar 2006, section 3.2.2: 4 classifiers on 14 data sets, q = 2.569, CD = 1.25
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_ranks_and_pairs() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.4, 0.9, 12)
    table = pd.DataFrame(
        [base + 0.05 + random.normal(0, 0.005, 12), base + random.normal(0, 0.005, 12),
         base + random.normal(0, 0.005, 12)],
        index=["tcpa", "vpt", "vp"], columns=[f"d{k}" for k in range(12)],
    )  # fmt: skip
    rows, note = rank_rows(table, STUDY)
    assert note == "" and rows[0]["method"] == "tcpa" and rows[0]["mean_rank"] == 1.0
    assert json.loads(rows[0]["not_worse_than"]) == []
    assert json.loads(rows[1]["not_worse_than"]) in (["vp"], ["vpt"])
    reference = stats.friedmanchisquare(*table.to_numpy()).pvalue
    assert rows[0]["friedman_p"] == pytest.approx(reference)
    assert joined(pd.DataFrame(rows)) == [(rows[1]["mean_rank"], rows[2]["mean_rank"])]


def test_ties_and_too_few() -> None:
    assert friedman_p(np.ones((3, 5))) == 1.0
    rows, note = rank_rows(pd.DataFrame(np.ones((3, 6)), index=list("abc")), STUDY)
    assert {row["mean_rank"] for row in rows} == {2.0} and note == ""
    rows, note = rank_rows(pd.DataFrame(np.ones((2, 6))), STUDY)
    assert rows == [] and "need 3 methods on 5 datasets" in note


def test_group_means_are_two_and_named() -> None:
    tasks = [task for group in VTAB_GROUPS.values() for task in group]
    assert len(tasks) == len(set(tasks)) == 19
    values = {t: {"natural": 0.9, "specialized": 0.6, "structured": 0.3}[g]
              for g, members in VTAB_GROUPS.items() for t in members}  # fmt: skip
    table = pd.DataFrame([values, {**values, "svhn": np.nan}], index=["vpt", "gap"])
    means = {(r["method"], r["group"]): r for r in group_rows(table, STUDY)}
    assert means["vpt", MEAN_OF_GROUPS]["mean"] == pytest.approx(0.6)
    assert means["vpt", MEAN_OF_TASKS]["mean"] == pytest.approx((7 * 0.9 + 4 * 0.6 + 8 * 0.3) / 19)
    assert means["gap", "natural"]["mean"] is None and means["gap", "natural"]["missing"] == "svhn"
    assert means["gap", MEAN_OF_GROUPS]["mean"] is None
    assert means["gap", "structured"]["mean"] == pytest.approx(0.3)
    assert group_rows(pd.DataFrame([[0.5]], columns=["digits"]), STUDY) == []
