"""Statistics against hand-worked numbers, scipy and statsmodels."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from reports.stats import (
    MEDIAN_FROM,
    bca_interval,
    compare_paired,
    detectable_effect,
    holm,
    rank_biserial,
    summarise,
)


def test_summary_by_hand() -> None:
    found = summarise([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.std) == (3, 2.0, 1.0)
    margin = 4.302652729911275 / 3**0.5  # Student's t, 2 degrees of freedom
    assert found.low == pytest.approx(2 - margin)
    assert found.high == pytest.approx(2 + margin)


def test_one_value_has_no_interval() -> None:
    found = summarise([0.5])
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 0.5, None, None, None)
    assert summarise([]).mean is None


def test_paired_comparison_equals_scipy() -> None:
    ours, theirs = {0: 0.81, 1: 0.84, 2: 0.80, 3: 0.9}, {0: 0.79, 1: 0.80, 2: 0.81, 4: 0.5}
    found = compare_paired(ours, theirs)
    reference = stats.ttest_rel([0.81, 0.84, 0.80], [0.79, 0.80, 0.81])
    assert found.n == 3, "only shared seeds are paired"
    assert found.diff == pytest.approx((0.02 + 0.04 - 0.01) / 3)
    assert found.p == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.dz == pytest.approx(reference.statistic / 3**0.5)


def test_equal_differences_cannot_be_tested() -> None:
    found = compare_paired({0: 0.3, 1: 0.5}, {0: 0.2, 1: 0.4})
    assert found.diff == pytest.approx(0.1)
    assert (found.p, found.dz) == (None, None)


def test_holm_equals_statsmodels() -> None:
    raw = [0.01, 0.04, 0.03, 0.2]
    assert holm(raw) == pytest.approx(multipletests(raw, method="holm")[1])
    assert holm([None, 0.02]) == [None, 0.02], "what was not tested does not count"


def test_rank_biserial_by_hand() -> None:
    # ranks of |2|, |-1|, |3|, |4| are 2, 1, 3, 4: (2 + 3 + 4 - 1) / 10; the zero takes no part
    assert rank_biserial([2.0, -1.0, 3.0, 4.0, 0.0]) == pytest.approx(0.8)
    assert rank_biserial([1.0, 1.0]) == 1.0 and rank_biserial([0.0]) == 0.0


def test_wilcoxon_equals_scipy() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 12)
    found = compare_paired(dict(enumerate(values)), dict.fromkeys(range(12), 0.0), "wilcoxon")
    assert found.test == "wilcoxon" and found.interval == "wilcoxon"
    assert found.p == pytest.approx(stats.wilcoxon(values).pvalue)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
def test_detectable_effect_has_the_power_of_statsmodels(n: int) -> None:
    assert TTestPower().power(detectable_effect(n), n, 0.05) == pytest.approx(0.8, abs=1e-6)


def test_bca_equals_scipy_but_for_its_expansion() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    n = len(values)
    wider = 2 * stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)) - 1
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=wider, n_resamples=20_000, method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    low, high = bca_interval(values, np.mean)
    assert low == pytest.approx(theirs.low, abs=0.02) and high == pytest.approx(
        theirs.high, abs=0.03
    )


def test_medians_and_small_samples() -> None:
    few, many = summarise([1.0, 2.0, 9.0]), summarise(list(range(MEDIAN_FROM)))
    assert few.median == 2.0 and few.median_low is None, "three seeds cannot bound a median"
    assert many.median_low is not None and many.median_high is not None
    assert many.median_low < many.median < many.median_high
    assert bca_interval([2.0, 2.0, 2.0], np.median) == (2.0, 2.0)
