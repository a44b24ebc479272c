"""Importance of settings on functions whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from reports.importance import fanova, first_of, identity, importance_rows, ped_anova
from reports.study import Study

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
        "val_accuracy": value, "left_out": "",
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
    rows, note = importance_rows(table, STUDY)
    found = {(row["axis"], row["method"]): row for row in rows}
    assert note == "" and found["tcpa.k", "fanova"]["n"] == table["tcpa.k"].notna().sum()
    assert found["methods", "fanova"]["n"] == 300
    assert found["tcpa.k", "fanova"]["is_distinct"]
    assert found["methods", "fanova"]["is_distinct"]
    for method in ("fanova", "ped_anova"):
        assert not found["idle", method]["is_distinct"], "told from zero"


def test_little_and_constant_give_sentences() -> None:
    few = trials(9)
    assert "needs 10 completed trials, there are 9" in importance_rows(few, STUDY)[1]
    same = trials(50).assign(val_accuracy=0.5)
    assert "is the same in all trials" in importance_rows(same, STUDY)[1]


def test_identity_follows_the_trials_it_is_of() -> None:
    many = trials(1234)
    assert len(first_of(many)) == 1200 and len(first_of(many.head(999))) == 999
    assert identity(many, STUDY) == identity(many.head(1210), STUDY)
    changed = many.assign(val_accuracy=many["val_accuracy"].where(many.index != 3, 0.1))
    assert identity(many, STUDY) != identity(changed, STUDY)
