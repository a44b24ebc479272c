"""The expected best of n trials against all ways to draw them, and its band against simulation."""

from itertools import combinations

import numpy as np
import pytest

from reports.statistics.expected_best import expected_best, leaders, mean_curve

VALUES = [0.3, 0.7, 0.7, 0.1, 0.9, 0.55, 0.2]


@pytest.mark.parametrize("sign", [1, -1])
def test_it_is_the_mean_over_all_ways_to_draw(sign: int) -> None:
    curve = expected_best(VALUES, sign)
    best = max if sign > 0 else min
    literal = [
        np.mean([best(some) for some in combinations(VALUES, n)]) for n in range(1, len(VALUES) + 1)
    ]
    assert curve.mean == pytest.approx(literal)
    assert curve.mean[-1] == pytest.approx(best(VALUES)) and curve.num_trials == 7


def test_it_is_unbiased_where_draws_with_replacement_are_not() -> None:
    """Of three of eight normal values; Dodge et al.'s estimate is too low on average."""
    random = np.random.default_rng(0)
    draws = random.standard_normal((20_000, 8))
    truth = float(random.standard_normal((400_000, 3)).max(axis=1).mean())
    unbiased = np.mean([expected_best(row).mean[2] for row in draws[:4000]])
    assert unbiased == pytest.approx(truth, abs=0.02)
    share = (np.arange(1, 9) / 8) ** 3
    replaced = float((np.sort(draws, axis=1) @ np.diff(share, prepend=0)).mean())
    assert replaced < truth - 0.05


def test_the_error_is_the_jackknife_s_and_ends_where_it_says_nothing() -> None:
    curve = expected_best(VALUES)
    assert np.isfinite(curve.error[:3]).all() and np.isnan(curve.error[3:]).all()
    # of one draw it is the standard error of the mean
    assert curve.error[0] == pytest.approx(np.std(VALUES, ddof=1) / np.sqrt(7))
    assert np.isnan(expected_best([0.5, 0.6]).error).all()


def test_hundreds_of_trials_stay_in_range() -> None:
    values = np.random.default_rng(1).random(1200)
    curve = expected_best(values)
    assert curve.mean[0] == pytest.approx(values.mean()) and curve.mean[-1] == values.max()
    assert (np.diff(curve.mean) > -1e-9).all()


def test_the_band_of_a_mean_over_data_sets_covers() -> None:
    """Of a quarter of sixteen trials on three data sets."""
    random = np.random.default_rng(2)
    truth = float(random.beta(5, 2, (200_000, 4)).max(axis=1).mean())
    hits = 0
    for _ in range(600):
        one = mean_curve([expected_best(random.beta(5, 2, 16)) for _ in range(3)])
        hits += one[3, 1] <= truth <= one[3, 2]
    assert 0.92 <= hits / 600 <= 0.985


def test_who_leads_after_how_many_trials() -> None:
    steady, lucky = expected_best([0.5] * 4), expected_best([0.1, 0.1, 0.1, 0.8])
    curves = {"steady": mean_curve([steady]), "lucky": mean_curve([lucky, lucky])}
    # 0.1 + 0.175 n against 0.5
    assert leaders(curves) == [("steady", 1, 2), ("lucky", 3, 4)]
    assert leaders(curves, -1) == [("lucky", 1, 2), ("steady", 3, 4)]
    assert leaders({}) == []
