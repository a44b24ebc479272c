"""Ranks and group means across data sets, by hand and against scipy."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import reports
from reports.build import build_report
from reports.plots._rank_diagram import joined, sentence_of
from reports.statistics.across_data_sets import (
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    VTAB_GROUPS,
    Scores,
    critical_difference,
    fewest_for_pairs,
    friedman_p,
    group_rows,
    iman_davenport_p,
    rank_rows,
)
from tests.reports.studies import cell, final, over_datasets, planned, write


def test_critical_difference_of_demsar() -> None:
    # Demsar 2006, section 3.2.2: 4 classifiers on 14 data sets, q = 2.569, CD = 1.25
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(
    ("methods", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031),
     (9, 3.102), (10, 3.164)],
)  # fmt: skip
def test_critical_values_of_demsar(methods: int, q: float) -> None:
    """Table 5 (a) of Demsar 2006, for the two-tailed Nemenyi test at 5 %."""
    unit = np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) / unit == pytest.approx(q, abs=0.0015)


def test_friedman_with_the_f_of_iman_and_davenport() -> None:
    values = np.random.default_rng(3).normal(0, 0.5, (4, 14)) + np.array([[1], [0], [0.3], [0]])
    ranks = stats.rankdata(-values, axis=0).mean(axis=1)
    # Demsar 2006, section 3.2.2, term by term
    chi2 = 12 * 14 / (4 * 5) * ((ranks**2).sum() - 4 * 25 / 4)
    f = 13 * chi2 / (14 * 3 - chi2)
    assert iman_davenport_p(values) == pytest.approx(stats.f.sf(f, 3, 39))
    assert iman_davenport_p(values) < friedman_p(values)
    assert iman_davenport_p(np.ones((3, 5))) == 1.0
    assert iman_davenport_p(np.arange(15.0).reshape(3, 5)) == 0.0, "the same order everywhere"


def scores(table: pd.DataFrame, baseline: str = "", metric: str = "val_accuracy") -> Scores:
    return Scores("methods", metric, table, baseline, sign=1)


def test_ranks_and_pairs() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.4, 0.9, 12)
    table = pd.DataFrame(
        [base + random.normal(0, 0.005, 12), base + 0.05 + random.normal(0, 0.005, 12),
         base + random.normal(0, 0.005, 12)],
        index=["vpt", "tcpa", "vp"], columns=[f"d{k}" for k in range(12)],
    )  # fmt: skip
    rows, note = rank_rows(scores(table, "vpt"))
    assert note == "" and [row["level"] for row in rows] == ["vpt", "tcpa", "vp"]
    assert rows[1]["mean_rank"] == 1.0 and json.loads(rows[1]["not_worse_than"]) == []
    assert json.loads(rows[0]["not_worse_than"]) in (["vp"], ["vpt"])
    reference = stats.friedmanchisquare(*table.to_numpy()).pvalue
    assert rows[0]["friedman_p"] == pytest.approx(reference)
    assert "diff" not in rows[0], "the baseline is not compared with itself"
    assert rows[1]["diff"] == pytest.approx((table.loc["tcpa"] - table.loc["vpt"]).mean())
    raw = [stats.wilcoxon(table.loc[one] - table.loc["vpt"]).pvalue for one in ("tcpa", "vp")]
    assert [rows[1]["p"], rows[2]["p"]] == pytest.approx(raw)
    assert rows[1]["p_holm"] == pytest.approx(min(1, 2 * raw[0]))
    best_first = pd.DataFrame(rows).sort_values("mean_rank")
    ranks = list(best_first["mean_rank"])
    assert joined(best_first) == [(ranks[1], ranks[2])]


def test_ties_gaps_and_too_few() -> None:
    assert friedman_p(np.ones((3, 5))) == 1.0
    rows, note = rank_rows(scores(pd.DataFrame(np.ones((3, 6)), index=list("abc"))))
    assert {row["mean_rank"] for row in rows} == {2.0} and note == ""
    two = pd.DataFrame([[0.5, 0.7], [0.6, 0.8]], index=["a", "b"], columns=["x", "y"])
    rows, note = rank_rows(scores(two, "a"))
    assert [row["mean_rank"] for row in rows] == [2, 1] and "need 3 levels on 5 data sets" in note
    assert rows[1]["diff"] == pytest.approx(0.1) and rows[1]["p"] is None, "equal differences"
    assert rows[0]["mean"] == pytest.approx(0.6) and rows[0].get("friedman_p") is None
    rows, note = rank_rows(scores(two.assign(z=[0.5, np.nan])))
    assert {(row["n"], row["left_out"]) for row in rows} == {(2, "z")}
    rows, note = rank_rows(scores(two[["x"]]))
    assert rows == [] and "there are 2 on 1" in note


def test_group_means_are_two_and_named() -> None:
    tasks = [task for group in VTAB_GROUPS.values() for task in group]
    assert len(tasks) == len(set(tasks)) == 19
    values = {t: {"natural": 0.9, "specialized": 0.6, "structured": 0.3}[g]
              for g, members in VTAB_GROUPS.items() for t in members}  # fmt: skip
    table = pd.DataFrame([values, {**values, "svhn": np.nan}], index=["vpt", "gap"])
    means = {(r["level"], r["group"]): r for r in group_rows(scores(table))}
    assert means["vpt", MEAN_OF_GROUPS]["mean"] == pytest.approx(0.6)
    assert means["vpt", MEAN_OF_TASKS]["mean"] == pytest.approx((7 * 0.9 + 4 * 0.6 + 8 * 0.3) / 19)
    assert means["gap", "natural"]["mean"] is None and means["gap", "natural"]["missing"] == "svhn"
    assert means["gap", MEAN_OF_GROUPS]["mean"] is None
    assert means["gap", "structured"]["mean"] == pytest.approx(0.3)
    assert group_rows(scores(pd.DataFrame([[0.5]], columns=["digits"]))) == []


DESIGN = {
    "svhn": {"VPT": [0.5, 0.52], "+R": [0.6, 0.61], "+R+T": [0.61, 0.64]},
    "dtd": {"VPT": [0.7, 0.72], "+R": [0.7, 0.74], "+R+T": [0.75, 0.76]},
}


def test_a_design_over_datasets(tmp_path: Path) -> None:
    study = write(tmp_path / "d", over_datasets(DESIGN), "ablation")
    found = reports.load(study)
    val = found.ablation[found.ablation["metric"] == "val_accuracy"]
    assert list(val["dataset"]) == ["svhn"] * 3 + ["dtd"] * 3
    row = val.set_index(["dataset", "level"]).loc[("svhn", "+R")]
    assert row["diff"] == pytest.approx((0.1 + 0.09) / 2), "paired within the data set"
    assert row["n_paired"] == 2 and row["family"] == 2
    ranks = found.ranks.set_index(["metric", "level"])
    assert ranks.loc[("val_accuracy", "+R+T"), "mean_rank"] == 1.0
    assert ranks.loc[("val_accuracy", "+R"), "diff"] == pytest.approx((0.095 + 0.01) / 2)
    assert ranks.loc[("test_accuracy", "VPT"), "mean"] == pytest.approx((0.51 + 0.71) / 2 - 0.1)
    groups = found.groups.set_index(["metric", "level", "group"])
    assert "caltech101" in groups.loc[("val_accuracy", "VPT", "natural"), "missing"]
    build_report(study)
    text = (study / "tables" / "across.md").read_text()
    assert "**components: val accuracy (%)**" in text
    line = next(line for line in text.splitlines() if line.startswith("| +R+T |"))
    # svhn, dtd, mean, difference [interval], rank
    assert line.startswith("| +R+T | **62.50 ± 19.06** | **75.50 ± 6.35** | **69.00** | +8.00 |")
    assert line.endswith("| **1.00** |")
    assert "\\textbf{69.00}" in (study / "tables" / "across.tex").read_text()
    page = (study / "report" / "report.html").read_text()
    assert "Over 2 data sets no difference to VPT is shown." in page
    assert "Best mean rank: +R+T, 1.00 of 3." in page and "highest mean:" not in page
    assert "components on svhn" in page and "Across data sets, components: val accuracy" in page


def test_vtab_has_both_means_in_the_table(tmp_path: Path) -> None:
    tasks = [task for group in VTAB_GROUPS.values() for task in group]
    values = {t: {"VPT": [0.5 + 0.01 * i], "+R": [0.55 + 0.01 * i], "+R+T": [0.6 + 0.01 * i]}
              for i, t in enumerate(tasks)}  # fmt: skip
    study = write(tmp_path / "v", over_datasets(values), "ablation")
    summary = build_report(study)
    text = (study / "tables" / "across.md").read_text().splitlines()
    heads = next(line for line in text if "mean of 19 tasks" in line)
    assert heads.endswith("| natural | specialized | structured | mean of 19 tasks | "
                          "mean of groups | Δ | rank |")  # fmt: skip
    assert "(one seed)" not in text[5], "19 columns have no room for intervals"
    assert (study / "report" / "figures" / "ranks.svg").is_file()
    assert not any("across data sets need" in note for note in summary.notes)


def test_methods_are_compared_by_their_best_setting_on_each_dataset(tmp_path: Path) -> None:
    events = []
    for n, (root, method, value) in enumerate(
        [("a", "vpt", 0.5), ("a", "vpt", 0.6), ("a", "linear", 0.4), ("b", "vpt", 0.7),
         ("b", "linear", 0.8)]
    ):  # fmt: skip
        events += [planned(n, methods=[method], data__root=root, optim__lr=0.01 * (n + 1))]
        events += [final(n, "completed", value)]
    found = reports.load(write(tmp_path / "m", events))
    table = found.across[0].table
    assert table.loc["vpt"].tolist() == [0.6, 0.7] and table.loc["linear"].tolist() == [0.4, 0.8]
    assert found.ranks["mean_rank"].tolist() == [1.5, 1.5]
    alone = reports.load(write(tmp_path / "one", events[:6]))
    assert alone.scores.empty and alone.ranks.empty
    assert not any("across" in note for note in alone.notes)


def test_methods_that_lack_a_seed_are_compared_over_the_same_seeds(tmp_path: Path) -> None:
    """linear is 0.01 better everywhere, and its best seed has failed on one data set."""
    events, n = [], 0
    for root, method, seed in product("ab", ("vpt", "linear"), range(3)):
        value = 0.5 + 0.1 * seed + 0.01 * (method == "linear") + 0.2 * (root == "b")
        is_lost = (root, method, seed) == ("a", "linear", 2)
        events += [planned(n, seed=seed, methods=[method], data__root=root)]
        events += [final(n, "failed") if is_lost else final(n, "completed", value)]
        n += 1
    found = reports.load(write(tmp_path / "holes", events))
    table = found.across[0].table
    assert table.loc["linear"].tolist() == pytest.approx([0.61, 0.81])
    assert table.loc["vpt"].tolist() == pytest.approx([0.60, 0.80])
    assert dict(zip(found.ranks["level"], found.ranks["mean_rank"], strict=True)) == {
        "linear": 1, "vpt": 2,
    }  # fmt: skip
    assert (
        "The mean of linear on a is moved by +0.0500: what the seeds that it lacks are worth to "
        "the other methods."
    ) in found.notes


def test_a_level_that_a_dataset_lacks_is_named_and_left_out_of_the_means(tmp_path: Path) -> None:
    gap = {**DESIGN, "cars": {"VPT": [0.3, 0.4], "+R": [0.4, 0.5], "+R+T": []}}
    study = write(tmp_path / "gap", over_datasets(gap), "ablation")
    summary = build_report(study)
    ranks = reports.load(study).ranks
    assert set(ranks["n"]) == {2} and set(ranks["left_out"]) == {"cars"}
    lines = (study / "tables" / "across.md").read_text().splitlines()
    assert next(line for line in lines if line.startswith("| +R+T |")).split(" | ")[3] == "-"
    assert any("there are 3 on 2" in note for note in summary.notes)
    told = "mean, Δ and rank leave out cars: not every level has a value and a difference there."
    page = (study / "report" / "report.html").read_text()
    assert told in lines and told in page
    assert "rank leave out cars" in (study / "tables" / "across.tex").read_text()


def test_one_seed_on_each_dataset_has_no_interval(tmp_path: Path) -> None:
    single = {d: {row: seeds[:1] for row, seeds in rows.items()} for d, rows in DESIGN.items()}
    summary = build_report(write(tmp_path / "single", over_datasets(single), "ablation"))
    text = (tmp_path / "single" / "tables" / "across.md").read_text()
    assert "| VPT | 50.00 (one seed) |" in text
    assert any("one seed shows no spread" in note for note in summary.notes)


def test_differences_are_paired_by_seed_within_each_dataset(tmp_path: Path) -> None:
    """Seeds differ by ten points, rows by one; a failed seed must not look like a difference."""
    events: list[dict[str, Any]] = []
    by = {"VPT": 0.0, "+R": 0.01, "+R+T": 0.02}
    datasets = [f"d{k}" for k in range(8)]
    random = np.random.default_rng(0)
    for k, dataset in enumerate(datasets):
        for order, (level, more) in enumerate(by.items()):
            for seed in range(3):
                n = len(events) // 2
                at = cell("components", level, order, order == 0) | {"dataset": dataset}
                events += [planned(n, seed=seed, cells=[at], row=level, data__root=dataset)]
                lost = (level, seed) in (("+R", k % 3), ("+R+T", 2)) and k < 5
                value = 0.5 + 0.1 * seed + more + 0.001 * random.standard_normal()
                status = "failed" if lost else "completed"
                events += [final(n, status, None if lost else value)]
    study = write(tmp_path / "unpaired", events, "ablation")
    found = reports.load(study)
    rows = found.ablation[found.ablation["metric"] == "val_accuracy"]
    means = rows.pivot(index="dataset", columns="level", values="mean")
    assert (means["+R"] - means["VPT"]).tolist() == pytest.approx([0.01] * 8, abs=0.003)
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"].set_index("level")
    oracle = {}
    for level in ("+R", "+R+T"):
        diffs = []
        for dataset in datasets:
            one = found.trials[found.trials["data.root"] == dataset].set_index(["row", "seed"])
            values = one["val_accuracy"]
            pairs = [values[level, s] - values["VPT", s] for s in range(3)]
            diffs.append(np.nanmean(pairs))
        oracle[level] = np.array(diffs)
        row = ranks.loc[level]
        assert row["diff"] == pytest.approx(oracle[level].mean(), abs=1e-12)
        assert row["diff"] == pytest.approx(by[level], abs=0.002)
        assert row["p"] == pytest.approx(stats.wilcoxon(oracle[level]).pvalue)
        assert row["diff_low"] > 0, "as the test, which rejects"
        assert row["family"] == 2
    assert ranks["mean_rank"].tolist() == [3.0, 2.0, 1.0]
    build_report(study)
    text = (study / "tables" / "across.md").read_text()
    line = next(one for one in text.splitlines() if one.startswith("| +R+T |"))
    assert line.count("**") >= 2 * 9, "best on every data set and on average"
    assert any("+R on d0 lacks seed 0 (failed)" in note for note in found.notes)
    assert any("The mean of components = +R on d0 is moved by" in note for note in found.notes)


def test_one_failed_seed_of_two_datasets(tmp_path: Path) -> None:
    rows = {"VPT": [0.6, 0.7, 0.8], "+R": [0.61, 0.71, 0.81]}
    events = over_datasets({"dtd": rows, "svhn": rows})
    events = [e for e in events if e["trial"] != "00005"]
    at = cell("components", "+R", 1) | {"dataset": "dtd"}
    events += [planned(5, seed=2, cells=[at], row="+R", data__root="dtd"), final(5, "failed")]
    found = reports.load(write(tmp_path / "u", events, "ablation"))
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"].set_index("level")
    assert ranks.loc["+R", "diff"] == pytest.approx(0.01)
    assert ranks["mean"].tolist() == pytest.approx([0.7, 0.71])
    assert ranks["mean_rank"].tolist() == [2.0, 1.0]
    assert ranks[["diff_low", "p"]].isna().all(axis=None), "equal differences"
    text = "\n".join(found.notes)
    assert "+R on svhn to the baseline are equal in all 3 seeds" in text


def test_kinds_of_one_data_set_name_it_whatever_the_folder() -> None:
    from reports.statistics.across_data_sets import ONE_SET, dataset_of
    from tcpa_core import plugins
    from tcpa_core.data.base import PUBLISHED
    from tcpa_core.settings import DATASETS

    assert set(ONE_SET) == set(PUBLISHED) & set(plugins.names(DATASETS))
    trials = pd.DataFrame({
        "data.name": ["svhn", "cifar10", "folder", "digits"],
        "data.root": ["/data", "/data", "/data/mine", None],
    })  # fmt: skip
    assert dataset_of(trials).tolist() == ["svhn", "cifar10", "mine", "digits"]


@pytest.mark.parametrize("methods", [2, 3, 7])
def test_so_many_data_sets_tell_a_pair_apart_and_no_fewer(methods: int) -> None:
    """All differences of one sign and unequal: what Wilcoxon's test finds most unlikely."""
    pairs = methods * (methods - 1) // 2
    fewest = fewest_for_pairs(methods)
    for n in (fewest, fewest - 1):
        p = stats.wilcoxon(np.arange(1, n + 1), method="exact").pvalue
        assert (pairs * p < 0.05) == (n == fewest)


def test_the_critical_difference_and_the_bars_are_told_apart() -> None:
    """Five methods on five data sets: ranks differ by 2.73 (Nemenyi), but by Wilcoxon no pair."""
    rng = np.random.default_rng(0)
    values = np.arange(5)[:, None] / 10 + rng.uniform(0, 0.01, (5, 5))
    table = pd.DataFrame(values, list("edcba"), list("12345"))
    rows, _ = rank_rows(Scores("methods", "test", table, "", 1))
    said = sentence_of(pd.DataFrame(rows).sort_values("mean_rank"))
    assert said == (
        "a ranks best, 1.00 on 5 data sets; the critical difference tells it from d and e; by "
        "Wilcoxon-Holm (bars) it is not told apart from e, d, c and b: for that 10 pairs need 9 "
        "data sets."
    )
