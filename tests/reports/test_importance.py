"""Importance of settings on functions whose answer is known."""

import json

import numpy as np
import pandas as pd
import pytest

from reports.records.study import Study
from reports.statistics.forest import Forest
from reports.statistics.importance import (
    PAIRS,
    fanova,
    first_of,
    identity,
    importance_tables,
    ped_anova,
)

SPACE = {
    "axes": {
        "methods": {"choice": [["linear"], ["tcpa"]]},
        "optim.lr": {"float": [0.001, 0.1], "log": True},
        "tcpa.k": {"int": [1, 9], "when": {"methods": "tcpa"}},
        "idle": {"float": [0, 1]},
    }
}
STUDY = Study({"name": "x", "kind": "search", "space": SPACE})


def trials(n: int = 300) -> pd.DataFrame:
    """Accuracy depends on the method, a little on lr, and on k where there is one."""
    random = np.random.default_rng(0)
    is_tcpa = random.random(n) < 0.5
    lr = 10 ** random.uniform(-3, -1, n)
    k = random.integers(1, 10, n)
    value = 0.8 + 0.05 * is_tcpa + 0.01 * (np.log10(lr) + 2) + 0.01 * np.where(is_tcpa, k - 5, 0)
    return pd.DataFrame({
        "methods": np.where(is_tcpa, '["tcpa"]', '["linear"]'), "optim.lr": lr,
        "tcpa.k": pd.array(np.where(is_tcpa, k, 0), dtype="Int64"), "idle": random.random(n),
        "val_accuracy": value, "left_out": "", "point": [str(k) for k in range(n)],
    }).assign(**{"tcpa.k": lambda t: t["tcpa.k"].mask(~is_tcpa)})  # fmt: skip


def test_shares_of_an_additive_function() -> None:
    random = np.random.default_rng(1)
    x = random.random((500, 3))
    y = 2 * x[:, 0] + x[:, 1]  # variances 4/12 and 1/12: shares 0.8 and 0.2
    first, second, third = fanova(x, y, [0, 1, 2])
    assert first["importance"] == pytest.approx(0.8, abs=0.06)
    assert second["importance"] == pytest.approx(0.2, abs=0.06)
    assert third["importance"] < 0.02 and not third["is_distinct"]
    assert first["is_distinct"] and first["low"] < first["importance"] < first["high"]
    by_best = ped_anova(x, y, [0, 1, 2])
    assert by_best[0]["importance"] > by_best[1]["importance"] > by_best[2]["importance"]
    assert by_best[0]["is_distinct"] and not by_best[2]["is_distinct"]


def test_conditional_axis_is_judged_where_it_was_active() -> None:
    table = trials()
    rows, note = importance_tables(table, STUDY)
    found = {(row["axis"], row["method"]): row for row in rows["importance"]}
    assert note == "" and found["tcpa.k", "fanova"]["n"] == table["tcpa.k"].notna().sum()
    assert found["methods", "fanova"]["n"] == 300
    assert found["tcpa.k", "fanova"]["is_distinct"]
    assert found["methods", "fanova"]["is_distinct"]
    for method in ("fanova", "ped_anova"):
        assert not found["idle", method]["is_distinct"], "told from zero"


def boxed(x: np.ndarray, y: np.ndarray, num_trees: int = 20) -> Forest:
    return Forest.grow(x, y, np.stack([x.min(axis=0), x.max(axis=0)]), num_trees)


def test_a_marginal_is_the_mean_over_the_other_axes() -> None:
    random = np.random.default_rng(2)
    x = random.random((2000, 2))
    forest = boxed(x, 2 * x[:, 0] + x[:, 1])  # along the first axis: 2 x + 1/2
    grid = np.array([0.1, 0.5, 0.9])
    assert forest.marginal(0, grid).mean(axis=0) == pytest.approx([0.7, 1.5, 2.3], abs=0.1)
    surface = forest.pair_marginal(0, 1, grid, grid)
    assert surface == pytest.approx(2 * grid[:, None] + grid, abs=0.15)


def test_marginals_of_a_tree_by_brute_force() -> None:
    """The integrals over leaves are the means of predictions over a fine grid."""
    random = np.random.default_rng(3)
    x = random.random((60, 2))
    x[0], x[1] = 0, 1  # the box is the unit square
    y = np.where(x[:, 0] > 0.4, x[:, 1], 1.0)
    forest = boxed(x, y, 1)
    fine = (np.arange(2000) + 0.5) / 2000
    by_leaf = forest.pair_marginal(0, 1, fine, fine)
    total = by_leaf.var()
    first, second = by_leaf.mean(axis=1), by_leaf.mean(axis=0)
    assert forest.marginal(0, fine)[0] == pytest.approx(first, abs=2e-3)
    shares = forest.main_effects([0, 1])[0]
    assert shares == pytest.approx([first.var() / total, second.var() / total], abs=5e-3)
    both = (total - first.var() - second.var()) / total
    assert forest.interactions([(0, 1)])[0, 0] == pytest.approx(both, abs=1e-2)


def test_an_interaction_is_told_from_an_additive_function() -> None:
    random = np.random.default_rng(4)
    x = random.random((400, 3)) - 0.5
    rows = pd.DataFrame(x, columns=["a", "b", "c"]).assign(left_out="", point=range(400))
    space = {"axes": {k: {"float": [-0.5, 0.5]} for k in "abc"}}
    study = Study({"name": "x", "kind": "search", "space": space})
    found = {}
    for name, y in (("product", x[:, 0] * x[:, 1]), ("sum", x[:, 0] + x[:, 1])):
        tables, _ = importance_tables(rows.assign(val_accuracy=y), study)
        found[name] = {(r["axis"], r["other"]): r for r in tables["interactions"]}
    product, sum_ = found["product"]["a", "b"], found["sum"]["a", "b"]
    assert product["importance"] > 0.5 and product["is_distinct"]
    assert sum_["importance"] < 0.1 and not sum_["is_distinct"]
    assert not found["product"]["a", "c"]["is_distinct"]
    surface = np.array(json.loads(product["grid"])["mean"])
    half = len(surface) // 2
    assert surface[:half, :half].mean() > 0.01 > -0.01 > surface[:half, -half:].mean(), "a saddle"


def test_tables_have_marginals_in_the_units_of_the_settings() -> None:
    rows, _ = importance_tables(trials(), STUDY)
    marginals = pd.DataFrame(rows["marginals"]).set_index("axis")
    methods = marginals.loc["methods"]
    assert list(methods["label"]) == ["linear", "tcpa"]
    assert np.diff(methods["mean"])[0] == pytest.approx(0.05, abs=0.01)
    lr = marginals.loc["optim.lr"]
    assert 0.001 <= lr["value"].min() < 0.0015 and (lr["label"] == "").all()
    assert (lr["low"] <= lr["mean"]).all() and (lr["mean"] <= lr["high"]).all()
    pairs = {(r["axis"], r["other"]) for r in rows["interactions"]}
    assert ("methods", "tcpa.k") not in pairs, "never apart: there is nothing to tell"
    assert sum(row["grid"] is not None for row in rows["interactions"]) == PAIRS


def test_categories_weigh_alike_however_they_are_coded() -> None:
    """The codes of three words are 0, 1, 2; the middle one is not as wide as both others."""
    random = np.random.default_rng(5)
    code = random.integers(0, 3, 300)
    table = pd.DataFrame({
        "methods": np.array(["a", "b", "c"])[code], "idle": random.random(300), "left_out": "",
        "point": range(300), "val_accuracy": np.array([0.9, 0.3, 0.6])[code],
    })  # fmt: skip
    space = {"axes": {"methods": {"choice": ["a", "b", "c"]}, "idle": {"float": [0, 1]}}}
    rows, _ = importance_tables(table, Study({"name": "x", "kind": "search", "space": space}))
    along_idle = [r["mean"] for r in rows["marginals"] if r["axis"] == "idle"]
    assert np.median(along_idle) == pytest.approx(0.6, abs=0.01)


def test_little_and_constant_give_sentences() -> None:
    few = trials(9)
    assert "needs 10 completed points, there are 9" in importance_tables(few, STUDY)[1]
    same = trials(50).assign(val_accuracy=0.5)
    assert "is the same in all points" in importance_tables(same, STUDY)[1]


def test_identity_follows_the_trials_it_is_of() -> None:
    many = trials(1234)
    assert len(first_of(many)) == 1200 and len(first_of(many.head(999))) == 999
    assert identity(many, STUDY) == identity(many.head(1210), STUDY)
    changed = many.assign(val_accuracy=many["val_accuracy"].where(many.index != 3, 0.1))
    assert identity(many, STUDY) != identity(changed, STUDY)


def test_replicates_are_averaged_before_they_are_judged() -> None:
    """As the same points once; sums in another order may move a tree's split a little."""
    random = np.random.default_rng(6)
    x = random.random((40, 3))
    y = x[:, 0] + random.normal(0, 0.1, 40)
    noise = random.normal(0, 0.1, (5, 40))
    replicated = np.tile(x, (5, 1)), (y + noise - noise.mean(axis=0)).ravel()
    for judge in (fanova, ped_anova):
        expected, found = judge(x, y, [0, 1, 2]), judge(*replicated, [0, 1, 2])
        shares = [one["importance"] for one in expected]
        assert [one["importance"] for one in found] == pytest.approx(shares, abs=0.01)
        assert [one["is_distinct"] for one in found] == [one["is_distinct"] for one in expected]


def test_idle_axes_are_seldom_distinct_however_often_points_are_repeated() -> None:
    random = np.random.default_rng(0)
    called = {"fanova": 0, "ped_anova": 0}
    repeats = {"fanova": 8, "ped_anova": 40}
    for judge, times in ((fanova, repeats["fanova"]), (ped_anova, repeats["ped_anova"])):
        for k in range(times):
            x = random.random((20, 4))
            real = 0.05 * np.sin(3 * x[:, 0]) if k % 2 else 0.0
            quality = real + 0.01 * random.standard_normal(20)
            y = np.repeat(quality, 5) + 0.01 * random.standard_normal(100)
            found = judge(np.repeat(x, 5, axis=0), y, [1, 2, 3])
            called[judge.__name__] += sum(one["is_distinct"] for one in found)
    for name, times in repeats.items():
        assert called[name] <= 0.05 * 3 * times, name


def test_tables_count_points() -> None:
    table = trials(60)
    twice = pd.concat([table, table.assign(val_accuracy=table["val_accuracy"] + 0.01)])
    once, _ = importance_tables(table, STUDY)
    both, _ = importance_tables(twice, STUDY)
    counts = {row["axis"]: row["n"] for row in both["importance"]}
    assert counts == {row["axis"]: row["n"] for row in once["importance"]}
    assert counts["methods"] == 60
    shares = {(row["axis"], row["method"]): row["importance"] for row in once["importance"]}
    for row in both["importance"]:
        assert row["importance"] == pytest.approx(shares[row["axis"], row["method"]], abs=0.02)
    few = pd.concat([trials(9)] * 5)
    assert "needs 10 completed points, there are 9" in importance_tables(few, STUDY)[1]
