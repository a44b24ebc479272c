"""What a design will see: against statsmodels where the spread is known, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from reports.statistics.paired_tests import compare_paired
from reports.statistics.power import (
    Spread,
    across,
    between,
    pooled,
    seeds_for,
    seen_by_data_sets,
    seen_by_seeds,
    spread_of,
)

KNOWN = Spread(0.02, math.inf)


@pytest.mark.parametrize(("n", "error"), [(2, 0.05), (3, 0.05), (5, 0.01), (12, 0.05), (80, 0.05)])
def test_of_a_known_spread_it_is_the_t_test_s_own(n: int, error: float) -> None:
    effect = TTestPower().solve_power(nobs=n, alpha=error, power=0.8, alternative="two-sided")
    assert seen_by_seeds(KNOWN, n, error) == pytest.approx(0.02 * float(effect), rel=1e-4)


def test_fewest_seeds() -> None:
    need = seeds_for(KNOWN, 0.015)
    assert need is not None and seen_by_seeds(KNOWN, need) <= 0.015 < seen_by_seeds(KNOWN, need - 1)
    assert seeds_for(KNOWN, 1.0) == 2 and seeds_for(KNOWN, 1e-6) is None


def rejected(differences: np.ndarray, test: str) -> float:
    """Share of studies, one a row, in which the reports' own test says different."""
    if test == "paired t":
        return float((stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean())
    p = [compare_paired(dict(enumerate(row)), dict.fromkeys(range(len(row)), 0.0), "wilcoxon").p
         for row in differences]  # fmt: skip
    return float(np.mean([one is not None and one < 0.05 for one in p]))


@pytest.mark.parametrize(("rows", "seeds", "n"), [(2, 3, 5), (4, 5, 3), (3, 10, 12)])
def test_the_promise_holds_whatever_the_pilot_found(rows: int, seeds: int, n: int) -> None:
    """Each study's true difference is what its own pilot says can be seen."""
    random = np.random.default_rng(rows)
    noise, studies = 0.013, 3000
    pilots = random.normal(0.7, noise, (studies, rows, seeds))
    pilots += random.normal(0, 0.1, (studies, 1, seeds))  # what a seed is worth to all
    pilots += random.normal(0, 0.1, (studies, rows, 1))  # what a setting is worth
    seen = []
    for pilot in pilots:
        spread = spread_of({str(k): dict(enumerate(row)) for k, row in enumerate(pilot)})
        assert spread is not None and spread.df == (rows - 1) * (seeds - 1)
        seen.append(seen_by_seeds(spread, n))
    differences = random.normal(0, noise * math.sqrt(2), (studies, n)) + np.array(seen)[:, None]
    assert rejected(differences, "paired t") == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("n", "df"), [(6, math.inf), (19, 8)])
def test_the_promise_holds_over_data_sets(n: int, df: float) -> None:
    random = np.random.default_rng(n)
    studies = 1500
    found = np.ones(studies)
    if math.isfinite(df):
        found = np.sqrt(random.chisquare(df, studies) / df)
    unit = seen_by_data_sets(Spread(1.0, df), n)
    assert unit is not None
    differences = random.standard_normal((studies, n)) + (unit * found)[:, None]
    assert rejected(differences, "wilcoxon") == pytest.approx(0.8, abs=0.03)


def test_few_data_sets_see_nothing() -> None:
    assert seen_by_data_sets(KNOWN, 5) is None, "Wilcoxon's test rejects nothing there"
    assert seen_by_data_sets(KNOWN, 6) is not None
    assert seen_by_data_sets(KNOWN, 6, 0.01) is None


def test_how_spreads_are_found() -> None:
    random = np.random.default_rng(5)
    values = {name: dict(enumerate(random.normal(0.5, 0.01, 4))) for name in "ab"}
    spread = spread_of(values)
    # of two settings it is the spread of their differences
    difference = [values["a"][s] - values["b"][s] for s in range(4)]
    assert spread is not None and spread.value == pytest.approx(np.std(difference, ddof=1))
    low, high = spread.interval()
    n = 4  # the interval of a standard deviation
    assert low == pytest.approx(spread.value * math.sqrt(3 / stats.chi2.ppf(0.975, n - 1)))
    assert high == pytest.approx(spread.value * math.sqrt(3 / stats.chi2.ppf(0.025, n - 1)))
    assert pooled([Spread(1.0, 2), Spread(2.0, 6)]) == Spread(math.sqrt(26 / 8), 8)
    assert spread_of({"a": {0: 0.5, 1: 0.6}}) is None, "nothing to compare with"
    assert spread_of({"a": {0: 0.5, 1: 0.6}, "b": {2: 0.5, 3: 0.6}}) is None, "no shared seed"
    assert spread_of({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.4, 1: 0.5}}) is None, "nothing varies"


def test_data_sets_differ_by_more_than_their_seeds() -> None:
    random = np.random.default_rng(6)
    truth = random.normal(0.01, 0.03, (400, 3))  # three settings to a baseline on 400 data sets
    seen = truth + random.normal(0, 0.02 / math.sqrt(5), truth.shape)
    found = across(KNOWN, seen.T.tolist(), 5)
    assert found is not None and found.value == pytest.approx(0.03, rel=0.06)
    assert between(found, KNOWN, 4).value == pytest.approx(math.hypot(found.value, 0.01))
    assert across(KNOWN, [[0.1], [0.2]], 5) is None
    nothing = across(KNOWN, [[0.1, 0.1001]], 5)
    assert nothing is not None and nothing.value == 0
