"""What figures are made of, and when one is drawn again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import reports
from reports.build import looks_same
from reports.plots import curves, history, pareto, sweeps
from reports.plots.base import FORMATS
from tests.reports.studies import cell, epoch, final, planned, write


def test_front_by_hand() -> None:
    cost = pd.Series([1.0, 2.0, 2.0, 3.0, np.nan])
    value = pd.Series([0.5, 0.7, 0.6, 0.65, 0.9])
    assert pareto.on_front(cost, value, maximize=True).tolist() == [True, True, False, False, False]
    assert pareto.on_front(cost, value, maximize=False).tolist() == [True] + [False] * 4
    assert pareto.on_front(cost[:0], value[:0], maximize=True).tolist() == []


def test_history_and_regret(tmp_path: Path) -> None:
    events = []
    for n, (status, value) in enumerate(
        [("completed", 0.6), ("pruned", 0.9), ("completed", 0.8), ("completed", 0.7)]
    ):
        events += [planned(n, optim__lr=0.1 + n), final(n, status, value)]
    data = history.prepare(reports.load(write(tmp_path / "h", events)))
    assert data["best"].tolist() == [0.6, 0.6, 0.8, 0.8], "a pruned trial is not the best"
    assert data["regret"].tolist() == pytest.approx([0.2, 0.2, 0, 0])


def test_sweep_and_curves(tmp_path: Path) -> None:
    events, number = [], 0
    for order, level in enumerate([1, 10, 100]):
        for seed in (0, 1):
            at = cell("cvpt.num_prompts", str(level), order, order == 0)
            accuracy = 0.5 + 0.1 * order + 0.02 * seed
            events += [planned(number, seed=seed, cells=[at], cvpt__num_prompts=level)]
            events += [epoch(number, 1, accuracy), final(number, "completed", accuracy)]
            number += 1
    found = reports.load(write(tmp_path / "s", events, "ablation"))
    data = sweeps.prepare(found)
    assert data["x"].tolist() == [1, 10, 100]
    assert data["mean"].tolist() == pytest.approx([0.51, 0.61, 0.71])
    assert [axes.get_xscale() for axes in sweeps.draw(data, found).axes] == ["log"]  # type: ignore[union-attr]
    lines = curves.prepare(found)
    assert lines["group"].tolist() == ["1", "10", "100"]
    assert lines["mean"].tolist() == pytest.approx([0.51, 0.61, 0.71])


def test_a_figure_is_drawn_again_when_it_would_look_different(tmp_path: Path) -> None:
    data = pd.DataFrame({"x": [0.0, 1.0, np.nan], "name": ["a", "b", "c"], "n": [1, 2, 3]})
    path = tmp_path / "figure"
    assert not looks_same(data, path), "never drawn"
    data.to_parquet(path.with_suffix(".parquet"))
    assert not looks_same(data, path), "the files are gone"
    for kind in FORMATS:
        path.with_suffix(f".{kind}").touch()
    assert looks_same(data, path)
    assert looks_same(data.assign(x=[0.001, 1.0, np.nan]), path), "less than a dot"
    assert not looks_same(data.assign(x=[0.01, 1.0, np.nan]), path)
    assert not looks_same(data.assign(name=["a", "b", "d"]), path)
    assert not looks_same(data.head(2), path)
