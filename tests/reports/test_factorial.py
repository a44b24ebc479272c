"""Factorial designs: effects, interactions and aliases against contrasts from first principles."""

import json
from collections.abc import Callable, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import reports
from reports.build import build_report
from reports.statistics.ablation import ablation_tables, seed_shifts
from reports.statistics.factorial import Factorial
from reports.statistics.paired_tests import compare_paired, holm
from spaces.fraction import two_level_runs
from spaces.load import space_of
from tests.reports.studies import final, planned, write

LEVELS: dict[str, list[Any]] = {
    "optim.lr": [0.001, 0.01],
    "optim.weight_decay": [0.0, 0.1],
    "train.label_smoothing": [0.0, 0.1],
    "train.dropout": [0.0, 0.1],
    "train.batch_size": [32, 64],
    "train.drop_path": [0.0, 0.1],
}
Point = Mapping[str, Any]


def events(
    design: str,
    factors: Mapping[str, list[Any]],
    truth: Callable[[Point], float],
    *,
    seeds: int = 5,
    noise: float = 0.001,
    lost: Callable[[Point, int], bool] = lambda point, seed: False,
    **ablation: Any,
) -> list[dict[str, Any]]:
    """A design with known values: truth, a part of the seed's own, noise; lost trials failed."""
    baseline = {path: levels[0] for path, levels in factors.items()}
    spec = {"design": design, "factors": dict(factors), "seeds": seeds, "baseline": baseline}
    base = {"methods": ["linear"], "data.name": "digits", "backbone.name": "vit_nano"}
    space = space_of({"name": "x", "base": base, "ablation": spec | ablation})
    random = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for n, one in enumerate(space.design()):
        y = truth(one.point) + 0.03 * one.seed + noise * random.standard_normal()
        params = {path.replace(".", "__"): value for path, value in one.point.items()}
        cells = [cell.model_dump() for cell in one.cells]
        found.append(planned(n, seed=one.seed, cells=cells, **params))
        if lost(one.point, one.seed):
            found.append(final(n, "failed", reason="out of memory"))
        else:
            found.append(final(n, "completed", y, test_accuracy=y - 0.01))
    return found


def additive(factors: Mapping[str, list[Any]]) -> Callable[[Point], float]:
    """The k-th factor adds k points."""
    return lambda point: (
        0.4
        + sum(
            0.01 * k * (point[path] == levels[1])
            for k, (path, levels) in enumerate(factors.items(), 1)
        )
    )


def first(number: int) -> dict[str, list[Any]]:
    return dict(list(LEVELS.items())[:number])


def val(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["metric"] == "val_accuracy"]


def by_hand(trials: pd.DataFrame, factors: Mapping[str, list[Any]]) -> dict[tuple[str, ...], Any]:
    """Effects of every seed: least squares on columns of -1 and +1, all of which are orthogonal."""
    found: dict[tuple[str, ...], list[float]] = {}
    for _, part in trials.groupby("seed"):
        signs = {p: np.where(part[p] == levels[1], 1.0, -1.0) for p, levels in factors.items()}
        y = part["val_accuracy"].to_numpy(float)
        for path, column in signs.items():
            found.setdefault((path,), []).append(2 * float(column @ y) / len(y))
        for a, b in combinations(factors, 2):
            found.setdefault((a, b), []).append(4 * float(signs[a] * signs[b] @ y) / len(y))
    return found


@pytest.mark.parametrize(
    ("design", "number", "runs"),
    [
        ("full_factorial", 3, 8),
        ("fractional_factorial", 4, 8),
        ("fractional_factorial", 5, 16),
        ("fractional_factorial", 6, 16),
    ],
)
def test_effects_are_contrasts_over_all_runs(
    design: str, number: int, runs: int, tmp_path: Path
) -> None:
    factors = first(number)
    found = reports.load(
        write(tmp_path / "f", events(design, factors, additive(factors)), "ablation")
    )
    assert len(found.trials) == 5 * runs
    oracle = by_hand(found.trials, factors)
    rows = val(found.ablation)
    mains = rows[(rows["factor"] != "combination") & ~rows["is_baseline"]].set_index("factor")
    assert list(mains.index) == list(factors)
    for k, path in enumerate(factors, 1):
        row = mains.loc[path]
        assert row["diff"] == pytest.approx(0.01 * k, abs=0.001), "within 0.1 points of the truth"
        values = np.array(oracle[(path,)])
        test = stats.ttest_1samp(values, 0)
        assert row["diff"] == pytest.approx(values.mean(), abs=1e-12)
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-6) and row["p"] < 1e-4
        interval = test.confidence_interval()
        assert (row["diff_low"], row["diff_high"]) == pytest.approx(tuple(interval), abs=1e-9)
        assert (row["n"], row["n_paired"], row["missing"]) == (5, 5, "")
    assert set(mains["family"]) == {number} and set(mains["family_of"]) == {"two-level factors"}
    assert list(mains["p_holm"]) == pytest.approx(holm(list(mains["p"])))
    assert not any("lacks" in note for note in found.notes)
    pairs = val(found.effects)
    for row in pairs.to_dict("records"):
        values = np.array(oracle[row["factor"], row["other"]])
        test = stats.ttest_1samp(values, 0)
        assert row["effect"] == pytest.approx(values.mean(), abs=1e-12)
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-6)
        assert row["low"] == pytest.approx(test.confidence_interval().low, abs=1e-9)
        assert row["family"] == len(pairs)


def test_pairs_that_are_aliased_have_one_row_that_names_them(tmp_path: Path) -> None:
    factors = first(4)
    study = write(
        tmp_path / "iv", events("fractional_factorial", factors, additive(factors)), "ablation"
    )
    summary = build_report(study)
    found = reports.load(study)
    pairs = val(found.effects)
    named = dict(zip(zip(pairs["factor"], pairs["other"], strict=True), pairs["aliases"],
                     strict=True))  # fmt: skip
    assert named == {
        ("optim.lr", "optim.weight_decay"): "label_smoothing × dropout",
        ("optim.lr", "train.label_smoothing"): "weight_decay × dropout",
        ("optim.lr", "train.dropout"): "weight_decay × label_smoothing",
    }
    alias = "weight_decay × label_smoothing × dropout"
    assert set(val(found.ablation).query("factor == 'optim.lr'")["aliases"]) == {alias}
    assert any("(aliases): optim.lr with " + alias in note for note in summary.notes)
    text = (study / "tables" / "ablation.md").read_text()
    page = (study / "report" / "report.html").read_text()
    latex = (study / "tables" / "ablation.tex").read_text()
    for shown in (text.replace("\\", ""), page):
        assert "p (Holm, 4 two-level factors)" in shown
        assert "optim.lr × train.dropout" in shown and "p (Holm, 3 two-factor int" in shown
        assert f"Aliased with {alias}." in shown
    assert "Holm over 4 two-level factors" in latex and r"optim.lr $\times$ train.dropout" in latex


def test_a_fraction_of_resolution_three_names_the_pairs_of_its_main_effects(tmp_path: Path) -> None:
    factors = first(3)
    found = reports.load(
        write(
            tmp_path / "iii",
            events("fractional_factorial", factors, additive(factors), runs=4),
            "ablation",
        )
    )
    rows = val(found.ablation).set_index("factor")
    assert set(rows.loc["optim.lr", "aliases"]) == {"weight_decay × label_smoothing"}
    assert found.effects.empty, "every pair is a main effect's alias"


@pytest.mark.parametrize(("design", "number"), [("full_factorial", 4), ("fractional_factorial", 5)])
def test_main_effects_beside_an_interaction_carry_a_hint(
    design: str, number: int, tmp_path: Path
) -> None:
    def truth(point: Point) -> float:
        both = point["optim.lr"] == 0.01 and point["train.dropout"] == 0.1
        return additive(first(number))(point) + 0.02 * both

    study = write(tmp_path / "i", events(design, first(number), truth), "ablation")
    found = reports.load(study)
    pairs = val(found.effects).set_index(["factor", "other"])
    real = pairs.loc[("optim.lr", "train.dropout")]
    assert real["effect"] == pytest.approx(0.02, abs=0.002) and real["p_holm"] < 1e-3
    hints = val(found.ablation).groupby("factor")["hint"].first()
    assert "depends on train.dropout" in hints["optim.lr"]
    assert "depends on optim.lr" in hints["train.dropout"]
    assert hints["optim.weight_decay"] == ""
    build_report(study)
    assert (study / "report" / "figures" / "effects.svg").is_file()
    page = (study / "report" / "report.html").read_text()
    assert "‡ optim.lr depends on train.dropout" in page


def test_pairs_that_share_a_contrast_are_all_hinted_at(tmp_path: Path) -> None:
    def truth(point: Point) -> float:
        both = point["optim.lr"] == 0.01 and point["train.dropout"] == 0.1
        return additive(first(4))(point) + 0.02 * both

    whole = events("fractional_factorial", first(4), truth)
    found = reports.load(write(tmp_path / "a", whole, "ablation"))
    hints = val(found.ablation).groupby("factor")["hint"].first()
    assert hints["optim.lr"].startswith("may depend on") and "train.dropout" in hints["optim.lr"]
    assert "train.label_smoothing" in hints["optim.weight_decay"]


def test_levels_beyond_two_are_compared_with_the_baselines(tmp_path: Path) -> None:
    factors = {"optim.lr": [0.001, 0.01, 0.1], "train.batch_size": [16, 32, 64, 128]}

    def truth(point: Point) -> float:
        both = 0.03 if (point["optim.lr"], point["train.batch_size"]) == (0.1, 64) else 0.0
        return 0.5 + 0.2 * point["optim.lr"] + 0.001 * point["train.batch_size"] + both

    found = reports.load(
        write(tmp_path / "m", events("full_factorial", factors, truth, noise=0.0002), "ablation")
    )
    pairs = val(found.effects)
    assert len(pairs) == 2 * 3 and set(pairs["family"]) == {6}
    truths = {("0.1", "64"): 0.03}
    for row in pairs.to_dict("records"):
        expected = truths.get((row["level"], row["other_level"]), 0.0)
        assert row["effect"] == pytest.approx(expected, abs=0.001)
    rows = val(found.ablation).set_index(["factor", "level"])
    assert rows.loc[("optim.lr", "0.01"), "family_of"] == "levels of optim.lr"
    assert rows.loc[("optim.lr", "0.1"), "diff"] == pytest.approx(0.0198 + 0.03 / 4, abs=5e-4)


def test_holes_do_not_bias_levels_effects_or_interactions(tmp_path: Path) -> None:
    """A failed run of the best combination: its seed is left out of what it belongs to."""
    factors = first(3)

    def lost(point: Point, seed: int) -> bool:
        return seed == 4 and all(point[path] == levels[1] for path, levels in factors.items())

    study = write(
        tmp_path / "h", events("full_factorial", factors, additive(factors), lost=lost), "ablation"
    )
    found = reports.load(study)
    rows = val(found.ablation)
    for k, path in enumerate(factors, 1):
        low, high = rows[rows["factor"] == path].to_dict("records")
        assert (low["n"], high["n"], high["n_paired"]) == (4, 4, 4)
        assert high["diff"] == pytest.approx(0.01 * k, abs=0.001)
        assert high["mean"] - low["mean"] == pytest.approx(high["diff"], abs=1e-12)
        assert high["left_out"] == "seed 4" and "(failed)" in high["missing"]
    assert val(found.effects)["effect"].abs().max() < 0.002
    assert set(val(found.effects)["n"]) == {4}
    assert any("optim.lr leave out seed 4" in note for note in found.notes)


def test_a_combination_that_never_works_is_left_out_of_all_levels(tmp_path: Path) -> None:
    factors = first(3)

    def lost(point: Point, seed: int) -> bool:
        return all(point[path] == levels[1] for path, levels in factors.items())

    found = reports.load(
        write(tmp_path / "n", events("full_factorial", factors, additive(factors), lost=lost),
              "ablation")
    )  # fmt: skip
    rows = val(found.ablation)
    rows = rows[(rows["factor"] != "combination") & ~rows["is_baseline"]]
    assert list(rows["diff"]) == pytest.approx([0.01, 0.02, 0.03], abs=0.001)
    assert set(rows["n"]) == {5}
    assert set(rows["left_out"]) == {"1 of 4 combinations of the others"}


def test_a_fraction_needs_every_run_of_a_seed(tmp_path: Path) -> None:
    factors = first(5)

    def lost(point: Point, seed: int) -> bool:
        return seed == 0 and point["optim.lr"] == 0.01 and point["train.batch_size"] == 64

    found = reports.load(
        write(tmp_path / "g", events("fractional_factorial", factors, additive(factors), lost=lost),
              "ablation")
    )  # fmt: skip
    rows = val(found.ablation)
    rows = rows[(rows["factor"] != "combination") & ~rows["is_baseline"]]
    assert list(rows["diff"]) == pytest.approx([0.01 * k for k in range(1, 6)], abs=0.001)
    assert set(rows["n"]) == {4} and set(rows["left_out"]) == {"seed 0"}


def test_a_design_that_still_runs_has_no_effects_of_half_a_fraction(tmp_path: Path) -> None:
    whole = events("fractional_factorial", first(5), additive(first(5)), seeds=1)
    space = {"name": "r", "ablation": {"design": "fractional_factorial", "seeds": [0]}}
    found = reports.load(write(tmp_path / "r", whole[: 2 * 11], "ablation", space))
    rows = val(found.ablation)
    rows = rows[rows["factor"] != "combination"]
    assert rows["diff"].isna().all() and val(found.effects)["effect"].isna().all()
    assert set(rows["missing"]) == {""}, "combinations outside the fraction are not lacking"
    assert "optim.lr has no means: no seed has all runs that they are over." in found.notes


def test_each_dataset_has_its_own_effects(tmp_path: Path) -> None:
    datasets = {"a": {"data.split_seed": 1}, "b": {"data.split_seed": 2}}
    whole = events("fractional_factorial", first(4), additive(first(4)), datasets=datasets, seeds=3)
    study = write(tmp_path / "d", whole, "ablation")
    found = reports.load(study)
    rows = val(found.ablation)
    mains = rows[(rows["factor"] == "train.dropout") & ~rows["is_baseline"]]
    assert list(mains["dataset"]) == ["a", "b"]
    assert list(mains["diff"]) == pytest.approx([0.04, 0.04], abs=0.001)
    assert set(mains["family"]) == {4}, "one family for each data set"
    assert list(val(found.effects)["dataset"].unique()) == ["a", "b"]
    build_report(study)
    assert "interactions on b" in (study / "tables" / "ablation.md").read_text()


def test_two_level_factors_of_one_factor_designs_are_one_family(tmp_path: Path) -> None:
    factors = {**first(3), "train.batch_size": [16, 32, 64]}
    found = reports.load(
        write(tmp_path / "o", events("one_factor", factors, additive(first(3))), "ablation")
    )
    families = val(found.ablation).groupby("factor", sort=False)[["family", "family_of"]].first()
    assert families["family"].tolist() == [3, 3, 3, 2]
    assert families["family_of"].tolist() == [*["two-level factors"] * 3,
                                              "levels of train.batch_size"]  # fmt: skip
    assert found.effects.empty


def test_a_trial_that_counts_for_two_runs_is_in_both() -> None:
    """Points of equal settings are one trial with the cells of all of them."""

    def cells(a: str, b: str) -> list[dict[str, Any]]:
        both = [("a", a), ("b", b), ("combination", f"a={a}, b={b}")]
        return [{"factor": f, "level": v, "order": 0, "baseline": v in ("0", "a=0, b=0")}
                for f, v in both]  # fmt: skip

    runs = [cells("0", "0") + cells("0", "1"), cells("1", "0"), cells("1", "1")]
    rows = [
        {"trial": f"{s}{n}", "seed": s, "status": "completed", "val_accuracy": y + 0.1 * s + e,
         "test_accuracy": None, "cells": json.dumps(one)}
        for s, e in ((0, 0.0), (1, 0.001))
        for n, (one, y) in enumerate(zip(runs, (0.5, 0.6, 0.8), strict=True))
    ]  # fmt: skip
    levels, effects = ablation_tables(pd.DataFrame(rows))
    diffs = {r["factor"]: r["diff"] for r in levels
             if r["metric"] == "val_accuracy" and r["level"] == "1"}  # fmt: skip
    assert diffs == pytest.approx({"a": 0.2, "b": 0.1})
    assert effects[0]["effect"] == pytest.approx(0.2)


def test_null_designs_err_in_five_percent() -> None:
    """Families of main effects and of interactions in 16 runs of five factors that do nothing."""
    runs = tuple(tuple(map(str, run)) for run in two_level_runs(5))
    design = Factorial(tuple("abcde"), (("0", "1"),) * 5, runs)
    random = np.random.default_rng(7)
    repeats, mains, pairs = 150, 0, 0
    for _ in range(repeats):
        values = {(s, run): 0.02 * s + random.normal(0, 0.01)
                  for s, run in product(range(4), runs)}  # fmt: skip
        means = [design.level_means(place, values)[0] for place in range(5)]
        mains += min(p for p in holm([compare_paired(b, a).p for a, b in means]) if p) < 0.05
        found = [design.interactions(at, values)["1", "1"] for at in combinations(range(5), 2)]
        adjusted = holm([compare_paired(one, dict.fromkeys(one, 0.0)).p for one in found])
        pairs += min(p for p in adjusted if p) < 0.05
    # twice the simulation's own error above 5 %
    assert max(mains, pairs) / repeats < 0.05 + 2 * (0.05 * 0.95 / repeats) ** 0.5


def test_levels_that_lack_seeds_are_moved_to_those_of_the_others() -> None:
    seeds = {0: 0.6, 1: 0.7, 2: 0.8}
    worse = {s: v + 0.01 for s, v in seeds.items() if s != 2}
    assert seed_shifts([seeds, worse]) == pytest.approx([0.0, 0.05])
    assert seed_shifts([seeds, seeds]) == [0.0, 0.0]
    assert seed_shifts([seeds, {}]) == [0.0, 0.0]
    assert seed_shifts([{0: 0.5}, {1: 0.9}]) == [0.0, 0.0], "nothing shared, nothing to compare"
    # additive truth: whatever is missing, every level is found where it would be with all seeds
    random = np.random.default_rng(2)
    worth, level = random.normal(0, 0.1, 6), random.normal(0, 0.1, 4)
    full = [{s: float(level[i] + worth[s]) for s in range(6)} for i in range(4)]
    holes = [{s: v for s, v in one.items() if s == 0 or random.random() < 0.6} for one in full]
    holes[1] = full[1]
    for one, lacking, shift in zip(full, holes, seed_shifts(holes), strict=True):
        mean = np.mean(list(lacking.values())) + shift
        assert mean == pytest.approx(np.mean(list(one.values())))
