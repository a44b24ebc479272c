"""What a search is expected to have found after n trials: is a method's lead one of the budget?

A method with a larger budget, or with more settings to tune, is compared fairly only along n. The
trials of a search are taken for draws of one distribution, which those of a random search are; a
sampler that learns makes later trials better, and then it is the curve of its trials in any order.

Source:
    J. Dodge et al., "Show your work", EMNLP 2019, section 3; without replacement, so unbiased: R.
    Tang et al., "Showing your work doesn't always work", ACL 2020, Eq. 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.special import gammaln

from reports.statistics.paired_tests import LEVEL, Array

IN_BAND = 0.5
"""Share of the trials up to which n has a band. Beyond it, what the best few trials happened to be
decides, and no band from the same trials covers what it says (`benchmarks/statistics.py`)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Expected best value after 1, 2, ... trials."""

    mean: Array
    """The largest of n drawn without replacement, on average over all ways to draw them."""
    error: Array
    """Its standard error by the jackknife; NaN beyond `IN_BAND` of the trials."""
    num_trials: int
    """Behind it."""


def expected_best(values: Sequence[float] | Array, sign: int = 1) -> Curve:
    """The curve of one search.

    Args:
        values: Of its trials, in any order; at least one.
        sign: 1 where larger is better, -1 where smaller is.
    """
    x = np.sort(sign * np.asarray(values, dtype=float))
    num = len(x)
    error = np.full(num, np.nan)
    if num > 2:
        left_out = np.array([_weights(num - 1) @ np.delete(x, i) for i in range(num)])
        spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
        inside = int(num * IN_BAND)
        error[:inside] = np.sqrt((num - 1) / num * spread)[:inside]
    return Curve(sign * (_weights(num) @ x), error, num)


def mean_curve(curves: Sequence[Curve]) -> Array:
    """The mean over data sets as (n, 3): expected best, low and high; NaN: no band there.

    It ends where the shortest curve ends. The band is Student's, its degrees of freedom those of
    the search with the fewest trials.
    """
    num = min(one.num_trials for one in curves)
    mean = np.mean([one.mean[:num] for one in curves], axis=0)
    error = np.sqrt(np.sum([one.error[:num] ** 2 for one in curves], axis=0)) / len(curves)
    reach = error * stats.t.ppf(0.5 + LEVEL / 2, max(1, num - 1))
    return np.column_stack([mean, mean - reach, mean + reach])


def leaders(curves: dict[str, Array], sign: int = 1) -> list[tuple[str, int, int]]:
    """Which method is expected to lead after how many trials, as (method, first n, last n).

    Args:
        curves: As of `mean_curve`, by method; they are compared up to the end of the shortest.
    """
    names = list(curves)
    num = min(map(len, curves.values()), default=0)
    if not num:
        return []
    first = np.argmax([sign * one[:num, 0] for one in curves.values()], axis=0)
    starts = [0, *(np.flatnonzero(np.diff(first)) + 1), num]
    return [
        (names[first[a]], int(a) + 1, int(b)) for a, b in zip(starts[:-1], starts[1:], strict=True)
    ]


@lru_cache(maxsize=256)
def _weights(num: int) -> Array:
    """Chance that the i-th smallest of `num` values is the largest of n of them, as (n, i)."""
    i = np.arange(1.0, num + 1)
    n = i[:, None]
    # C(i - 1, n - 1) / C(num, n), by logarithms: factorials of hundreds leave the range of floats
    ways = _log_choose(i - 1, n - 1) - _log_choose(np.full_like(i, num), n)
    return np.where(n <= i, np.exp(ways), 0.0)


def _log_choose(of: Array, k: Array) -> Array:
    """Of no meaning where k is the larger one."""
    return gammaln(of + 1) - gammaln(k + 1) - gammaln(np.maximum(of - k, 0) + 1)
