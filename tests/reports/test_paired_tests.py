"""Statistics against hand-worked numbers, scipy and statsmodels."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

import reports.statistics.paired_tests as stats_module
from reports.statistics.paired_tests import (
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


@pytest.mark.parametrize("n", [2, 3, 5, 10, 25])
@pytest.mark.parametrize("by", [0.0, 0.01, -0.1])
def test_equal_differences_have_neither_test_nor_interval(n: int, by: float) -> None:
    values = {s: 0.3 + 0.07 * s for s in range(n)}
    for test in ("paired t", "wilcoxon"):
        found = compare_paired({s: v + by for s, v in values.items()}, values, test)
        assert found.n == n and found.diff == pytest.approx(by)
        assert {found.p, found.dz, found.low, found.high, found.detectable} == {None}
        assert (found.interval, found.test) == ("", "")


def test_equal_values_have_no_interval() -> None:
    for n in (2, 5, 30):
        found = summarise([0.8] * n)
        assert (found.n, found.mean, found.std) == (n, pytest.approx(0.8), pytest.approx(0))
        assert {found.low, found.high, found.median_low, found.median_high} == {None}
    tied = summarise([0.8] * 29 + [0.9])
    assert tied.low is not None and tied.median_low is None, "most medians drawn are the same"


@pytest.mark.parametrize("test", ["paired t", "wilcoxon"])
def test_interval_and_test_agree_about_zero(test: stats_module.Test) -> None:
    """Also where a bootstrap would not: skewed differences, ties, zeros, outliers."""
    random = np.random.default_rng(5)
    called = 0
    for k in range(120):
        n = int(random.integers(2, 24) if test == "paired t" else random.integers(14, 24))
        d = random.normal(0.6, 1, n) if k % 2 else random.exponential(1, n) - 0.5
        d = d.round(1) if k % 3 == 0 else d
        d[0] += 20 * (k % 5 == 0)
        found = compare_paired(dict(enumerate(d)), dict.fromkeys(range(n), 0.0), test)
        assert found.p is not None and found.low is not None and found.high is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0), d
        assert found.low <= d.mean() <= found.high
        called += found.p < 0.05
    assert 20 < called < 110, "both answers were tried"


def test_interval_of_wilcoxon_by_trying_shifts() -> None:
    d = np.random.default_rng(11).normal(0.4, 1, 15)
    found = compare_paired(dict(enumerate(d)), dict.fromkeys(range(15), 0.0), "wilcoxon")
    assert found.low is not None and found.high is not None
    for end, outside in ((found.low, -1), (found.high, 1)):
        inside = stats.wilcoxon(d - (end - outside * 1e-6)).pvalue
        beyond = stats.wilcoxon(d - (end + outside * 1e-6)).pvalue
        assert beyond < 0.05 <= inside
    few = compare_paired(dict(enumerate(d[:5])), dict.fromkeys(range(5), 0.0), "wilcoxon")
    assert few.p is not None and few.p >= 0.05 and few.low is None, "five decide nothing"


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
