"""Means, intervals, paired tests and effect sizes over seeds. Nothing here knows tables or files.

Replicates are seeds. Two settings are compared by the differences of the seeds they share: seed s
gives both the same initial values, batches and augmentation, so their noise is partly common.
`benchmarks/statistics.py` prints how often the intervals cover and the tests err.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95
"""Confidence of every interval."""
POWER = 0.8
"""Chance of seeing the detectable difference."""
FEW = 3
"""With fewer replicates an interval is too wide to say much; tables warn."""
MEDIAN_FROM = 20
"""Values from which the bootstrap of the median covers 95 +- 1.5 %; with fewer, medians have no
interval."""
RESAMPLES = 2000
ERROR = 1 - LEVEL
"""Chance of calling different what is not, of every test."""
EQUAL = 1e-12
"""Values that differ by less, or by less than this share of them, are equal but for rounding."""

Test = Literal["paired t", "wilcoxon"]
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Centre and spread of n values. None: not defined (std and interval need n >= 2)."""

    n: int
    mean: float | None = None
    std: float | None = None
    """Sample standard deviation (divisor n - 1)."""
    low: float | None = None
    """Student's interval of the mean."""
    high: float | None = None
    median: float | None = None
    median_low: float | None = None
    """BCa bootstrap interval of the median; needs MEDIAN_FROM values."""
    median_high: float | None = None

    def moved(self, by: float) -> "Summary":
        """The same with every value moved."""
        places = ("mean", "low", "high", "median", "median_low", "median_high")
        values = {name: getattr(self, name) for name in places}
        return replace(self, **{name: v + by for name, v in values.items() if v is not None})


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of the n replicates that both sides have.

    None: not defined. The mean difference needs n >= 1. All others need n >= 2 and differences that
    are not all equal: where nothing varies, nothing says how far the mean may be off.
    """

    n: int
    diff: float | None = None
    low: float | None = None
    """Interval that excludes 0 where p < 5 %, and only there: the differences that the very test
    would not reject. None for Wilcoxon's with fewer than six replicates, which rejects nothing."""
    high: float | None = None
    interval: str = ""
    """ "student" or "wilcoxon", as the test; "" where there is none."""
    test: str = ""
    p: float | None = None
    """Two-sided."""
    dz: float | None = None
    """Paired Cohen's d: mean difference over the standard deviation of the differences."""
    rank_biserial: float | None = None
    """Rank sum of the positive differences less that of the negative, over their sum."""
    detectable: float | None = None
    """Smallest true difference that a paired t test at 5 % sees with 80 % power."""


def summarise(values: Sequence[float]) -> Summary:
    """Mean with Student's 95 % interval, median with the BCa bootstrap's.

    Equal values have no interval: one of width 0 would claim that no other value can occur.

    Args:
        values: Finite numbers, one per replicate.
    """
    n = len(values)
    if n == 0:
        return Summary(0)
    mean, median = float(np.mean(values)), float(np.median(values))
    if n == 1:
        return Summary(1, mean, median=median)
    std = float(np.std(values, ddof=1))
    if all_equal(values):
        return Summary(n, mean, std, median=median)
    # Student's, not normal: with 3 seeds the normal interval would cover 81 % instead of 95 %.
    margin = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * std / math.sqrt(n)
    low, high = bca_interval(values, np.median) if n >= MEDIAN_FROM else (None, None)
    if low == high:  # more than half of the values are the same
        low = high = None
    return Summary(n, mean, std, mean - margin, mean + margin, median, low, high)


def all_equal(values: Sequence[float] | Array) -> bool:
    """Whether values are the same but for rounding."""
    x = np.asarray(values, dtype=float)
    return bool(np.ptp(x) <= EQUAL * max(1.0, float(np.abs(x).max())))


def compare_paired(
    values: Mapping[Any, float],
    baseline: Mapping[Any, float],
    test: Test = "paired t",
) -> Paired:
    """Compare two settings by the replicates they share.

    The test is a matter of the design, fixed before the numbers are seen: the paired t test where
    replicates are seeds of one task (a rank test on five seeds cannot go below p = 0.06), Wilcoxon
    where they are datasets, whose differences have no common scale. The interval is the test's own,
    so the two never disagree about zero.

    Args:
        values: Replicate -> finite value.
        baseline: The same for the setting compared with.

    Source:
        dz: Lakens, "Calculating and reporting effect sizes", Front. Psychol. 4 (2013), Eq. 6.
        Rank-biserial: Kerby, "The simple difference formula", Compr. Psychol. 3 (2014).
    """
    # A seed that only one side has is left out: its noise is not shared.
    shared = [key for key in values if key in baseline]
    differences = np.array([values[key] - baseline[key] for key in shared], dtype=float)
    mean = summarise(differences.tolist())
    p = paired_p(differences, test)
    if p is None or mean.mean is None or mean.std is None:
        return Paired(mean.n, mean.mean)
    low, high, interval = mean.low, mean.high, "student"
    if test == "wilcoxon":
        low, high, interval = *rank_interval(differences, p), "wilcoxon"
    return Paired(
        mean.n, mean.mean, low, high, "" if low is None else interval, test, p,
        mean.mean / mean.std, rank_biserial(differences), detectable_effect(mean.n) * mean.std,
    )  # fmt: skip


def paired_p(differences: Array, test: Test) -> float | None:
    """Two-sided p that the differences are about 0; None for fewer than two or all equal ones."""
    n = len(differences)
    if n < 2 or all_equal(differences):
        return None
    if test == "wilcoxon":
        rounded = np.round(differences, 12)  # equal but for rounding is a tie
        return float(stats.wilcoxon(rounded, zero_method="wilcox").pvalue)
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(n))
    return float(2 * stats.t.sf(abs(t), n - 1))


def rank_interval(differences: Array, p: float) -> tuple[float | None, float | None]:
    """Shifts that Wilcoxon's signed ranks would not reject, and the mean.

    The ends are two of the means of two differences (Walsh averages). Ties and zeros change the
    test's p a little and not these, so there p has the last word about 0. A mean that few large
    differences pull out of the interval is taken into it.

    Args:
        p: Of the differences themselves.

    Source:
        Hollander, Wolfe, Chicken, Nonparametric Statistical Methods (2014), section 3.3.
    """
    rejected = rejected_rank_sum(len(differences))
    if rejected < 0:
        return None, None
    # each difference with itself and with every later one
    first, second = np.triu_indices(len(differences))
    walsh = np.sort(np.round((differences[first] + differences[second]) / 2, 12))
    low, high = walsh[rejected], walsh[-1 - rejected]
    if p < ERROR and low <= 0 <= high:
        if rank_biserial(differences) > 0:
            low = walsh[walsh > 0][0]
        else:
            high = walsh[walsh < 0][-1]
    held = [low, high, differences.mean(), *([0.0] if p >= ERROR else [])]
    return float(min(held)), float(max(held))


@lru_cache(maxsize=256)
def rejected_rank_sum(n: int, error: float = ERROR) -> int:
    """Largest rank sum of one sign that Wilcoxon's two-sided test rejects; -1: it rejects none.

    Args:
        n: Differences, without ties.
        error: Level of the test.
    """
    ways = np.ones(1)  # of choosing a sign for each rank, by the sum of the positive ones
    for rank in range(1, n + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return int((2 * ways.cumsum() / 2.0**n < error).sum()) - 1


def bca_interval(
    values: Sequence[float] | Array, statistic: Callable[..., Any], seed: int = 0
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval, expanded for small samples.

    The quantiles are taken further out, by as much as Student's interval is wider than the one with
    a normal quantile and divisor n: plain BCa intervals are too narrow (n = 10: 90 %).

    Args:
        values: At least two numbers.
        statistic: Such as np.mean; called with `axis`.

    Source:
        Efron, "Better bootstrap confidence intervals", JASA 82 (1987), Eq. 2.3 and 7.3.
        Expansion: Hesterberg, "What teachers should know about the bootstrap", Am. Stat. 69 (2015),
        section 4.1.
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    rows = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    draws, observed = statistic(x[rows], axis=1), statistic(x, axis=0)
    # Half of the draws that equal the observed value count as below it (medians tie often).
    below = (np.mean(draws < observed) + np.mean(draws <= observed)) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    left_out = np.array([statistic(np.delete(x, i), axis=0) for i in range(n)])
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum()) ** 1.5
    acceleration = float((pull**3).sum()) / (6 * spread) if spread else 0.0
    reach = math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + LEVEL / 2, n - 1)
    ends = bias + np.array([-reach, reach])
    at = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    low, high = np.quantile(draws, at)
    return float(low), float(high)


def rank_biserial(differences: Sequence[float] | Array) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1]; zero differences take no part."""
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if not len(d):
        return 0.0
    ranks = stats.rankdata(np.abs(d))
    return float((ranks[d > 0].sum() - ranks[d < 0].sum()) / ranks.sum())


@lru_cache(maxsize=256)
def detectable_effect(n: int, error: float = ERROR) -> float:
    """Smallest true |dz| that a two-sided paired t test sees with 80 % power.

    Args:
        n: Pairs, at least 2.
        error: Level of the test.
    """
    critical = stats.t.ppf(1 - error / 2, n - 1)

    def lack(effect: float) -> float:
        # Far out scipy's noncentral t has no number (NaN) for the other tail, which is nothing.
        shift = effect * math.sqrt(n)
        power = stats.nct.sf(critical, n - 1, shift)
        tail = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
        return float(power + tail) - POWER

    # The t test's power grows with the shift; 80 % lies between these for every n.
    low, high = 0.5 / math.sqrt(n), 1.5 * (float(critical) + 1) / math.sqrt(n)
    return float(optimize.brentq(lack, low, high))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment over one family; None stays None and does not count.

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979).
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    # A later p may not be adjusted below an earlier one.
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[i] = largest
    return adjusted
