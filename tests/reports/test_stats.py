"""Statistics against hand-worked numbers, scipy and statsmodels."""

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from reports.stats import compare_paired, holm, summarise


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
