"""Means, intervals, paired tests and effect sizes over seeds. Nothing here knows tables or files.

Replicates are seeds. Two settings are compared by the differences of the seeds they share: seed s
gives both the same initial values, batches and augmentation, so their noise is partly common.
`benchmarks/statistics.py` prints how often the intervals cover and the tests err.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
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
BCA_FROM = 10
"""Pairs from which the bootstrap of the mean difference covers 95 +- 1.5 %; with fewer it covers
less (five seeds: 90 %), so their interval is Student's."""
MEDIAN_FROM = 20
"""Values from which the bootstrap of the median does; with fewer, medians have no interval."""
RESAMPLES = 2000

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


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of the n replicates that both sides have.

    None: not defined. The mean difference needs n >= 1, its interval n >= 2; test, effect sizes and
    the detectable difference also need differences that are not all equal.
    """

    n: int
    diff: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """ "bca" from BCA_FROM pairs, else "student"; "" where there is none."""
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
    margin = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * std / math.sqrt(n)
    low, high = bca_interval(values, np.median) if n >= MEDIAN_FROM else (None, None)
    return Summary(n, mean, std, mean - margin, mean + margin, median, low, high)


def compare_paired(
    values: Mapping[Hashable, float],
    baseline: Mapping[Hashable, float],
    test: Test = "paired t",
) -> Paired:
    """Compare two settings by the replicates they share.

    The test is a matter of the design, fixed before the numbers are seen: the paired t test where
    replicates are seeds of one task (a rank test on five seeds cannot go below p = 0.06), Wilcoxon
    where they are datasets, whose differences have no common scale.

    Args:
        values: Replicate -> finite value.
        baseline: The same for the setting compared with.

    Source:
        dz: Lakens, "Calculating and reporting effect sizes", Front. Psychol. 4 (2013), Eq. 6.
        Rank-biserial: Kerby, "The simple difference formula", Compr. Psychol. 3 (2014).
    """
    shared = [key for key in values if key in baseline]
    differences = np.array([values[key] - baseline[key] for key in shared], dtype=float)
    mean = summarise(differences.tolist())
    if mean.n < 2 or mean.mean is None or mean.std is None:
        return Paired(mean.n, mean.mean)
    low, high, interval = mean.low, mean.high, "student"
    if mean.n >= BCA_FROM:
        (low, high), interval = bca_interval(differences, np.mean), "bca"
    # Differences that are equal but for rounding have no spread to test against.
    scale = max(abs(values[key]) for key in shared)
    if mean.std <= 1e-12 * max(scale, 1e-300):
        return Paired(mean.n, mean.mean, low, high, interval)
    if test == "wilcoxon":
        p = float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)
    else:
        t = mean.mean / (mean.std / math.sqrt(mean.n))
        p = float(2 * stats.t.sf(abs(t), mean.n - 1))
    return Paired(
        mean.n, mean.mean, low, high, interval, test, p, mean.mean / mean.std,
        rank_biserial(differences), detectable_effect(mean.n) * mean.std,
    )  # fmt: skip


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
def detectable_effect(n: int) -> float:
    """Smallest true |dz| that a two-sided paired t test at 5 % sees with 80 % power; n >= 2."""
    critical = stats.t.ppf(0.5 + LEVEL / 2, n - 1)

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
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[i] = largest
    return adjusted
