"""What a design will be able to see, from how much earlier trials spread; before it is started.

Over seeds of one data set settings are compared by the paired t test, over data sets by Wilcoxon's
signed ranks, as the reports do. The spread that they need is estimated from few earlier trials, so
it is uncertain itself; the detectable differences here allow for that: over all pilots that could
have been made, the test sees such a difference in 80 % of the studies.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from reports.statistics.paired_tests import ERROR, LEVEL, POWER, Array, rejected_rank_sum

STUDIES = 20_000
"""Simulated to find the power of Wilcoxon's test, whose error is then 0.3 %."""
SPREADS = 200
"""Quantiles of what a pilot may find for the spread, over which power is averaged."""
MOST = 10_000
"""Seeds or data sets up to which a number is looked for."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviation of differences, estimated."""

    value: float
    df: float
    """Degrees of freedom behind it; infinite: it is known."""

    def interval(self) -> tuple[float, float]:
        """95 % interval of the true one (normal noise)."""
        if math.isinf(self.df):
            return self.value, self.value
        tails = stats.chi2.ppf([0.5 + LEVEL / 2, 0.5 - LEVEL / 2], self.df)
        low, high = self.value * np.sqrt(self.df / tails)
        return float(low), float(high)


def spread_of(rows: Mapping[str, Mapping[int, float]]) -> Spread | None:
    """How much the difference of two settings spreads over seeds, from all pairs of settings.

    What a seed is worth to all settings cancels in a paired difference; what is left is the
    interaction of setting and seed.

    Args:
        rows: Values by seed, of each setting.

    Returns:
        None: fewer than two settings share two seeds, or nothing varies.

    Source:
        Residuals of the two-way layout, H. Scheffe, The Analysis of Variance (1959), section 4.2.
    """
    settings = [row for row, found in rows.items() if len(found) > 1]
    shared = sorted(set.intersection(*(set(rows[row]) for row in settings))) if settings else []
    if len(settings) < 2 or len(shared) < 2:
        return None
    values = np.array([[rows[row][seed] for seed in shared] for row in settings])
    rest = values - values.mean(axis=0) - values.mean(axis=1)[:, None] + values.mean()
    df = (len(settings) - 1) * (len(shared) - 1)
    variance = 2 * float((rest**2).sum()) / df  # of a difference of two
    return Spread(math.sqrt(variance), df) if variance > 1e-24 else None


def pooled(spreads: Sequence[Spread]) -> Spread:
    """One spread of several, each weighing by its degrees of freedom."""
    df = sum(one.df for one in spreads)
    return Spread(math.sqrt(sum(one.df * one.value**2 for one in spreads) / df), df)


def across(spreads: Spread, means: Sequence[Sequence[float]], num_seeds: int) -> Spread | None:
    """How much the difference of two settings varies from data set to data set, seeds aside.

    Args:
        spreads: Over seeds, within a data set.
        means: Differences of each setting to the same other one, by data set, each the mean over
            `num_seeds` seeds.

    Returns:
        None: fewer than two data sets. It may be 0: no more than the seeds explain.
    """
    rows = [np.asarray(row, float) for row in means if len(row) > 1]
    if not rows:
        return None
    df = sum(len(row) - 1 for row in rows)
    variance = sum(float(((row - row.mean()) ** 2).sum()) for row in rows) / df
    return Spread(math.sqrt(max(0.0, variance - spreads.value**2 / num_seeds)), df)


def between(of_data: Spread, of_seeds: Spread, num_seeds: int) -> Spread:
    """Spread over data sets of a difference that is a mean over so many seeds on each."""
    return Spread(math.hypot(of_data.value, of_seeds.value / math.sqrt(num_seeds)), of_data.df)


def seen_by_seeds(spread: Spread, n: int, error: float = ERROR) -> float:
    """Smallest true difference that the paired t test over n seeds sees with 80 % power.

    Args:
        n: At least 2.
        error: Level of the test; 5 % divided by the comparisons of Holm's family is on the safe
            side.
    """
    return spread.value * _effect_of_t(n, error, spread.df)


def seen_by_data_sets(spread: Spread, n: int, error: float = ERROR) -> float | None:
    """Smallest true mean difference that Wilcoxon's test over n data sets sees with 80 % power.

    Args:
        spread: Of a data set's difference, see `between`.

    Returns:
        None: with so few data sets the test rejects nothing, whatever the difference.
    """
    if rejected_rank_sum(n, error) < 0:
        return None
    return spread.value * _effect_of_ranks(n, error, spread.df)


def seeds_for(spread: Spread, difference: float, error: float = ERROR) -> int | None:
    """Fewest seeds that see a difference with 80 % power; None: more than `MOST`."""
    if seen_by_seeds(spread, MOST, error) > difference:
        return None
    low, high = 1, 2
    while seen_by_seeds(spread, high, error) > difference:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if seen_by_seeds(spread, middle, error) <= difference else (middle, high)
        )
    return high


@lru_cache(maxsize=1024)
def _effect_of_t(n: int, error: float, df: float) -> float:
    """In spreads as the pilot finds them."""
    critical = stats.t.ppf(1 - error / 2, n - 1)

    def lack(effect: float) -> float:
        shift = effect * math.sqrt(n) * _found(df)
        # far out scipy's noncentral t has no number for a tail: all of it or nothing
        power = np.nan_to_num(stats.nct.sf(critical, n - 1, shift), nan=1.0)
        return float(np.mean(power + np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift)))) - POWER

    return _root(lack, 4 / math.sqrt(n))


@lru_cache(maxsize=256)
def _effect_of_ranks(n: int, error: float, df: float) -> float:
    random = np.random.default_rng(0)
    noise = random.standard_normal((STUDIES, n))
    rejected = rejected_rank_sum(n, error)
    # The power at each of many shifts, of the same noise; between them it is nearly straight.
    shifts = np.linspace(0, (6 + 20 / n) / math.sqrt(n), 60)
    powers = [float((_smaller_sum(noise + shift) <= rejected).mean()) for shift in shifts]

    def lack(effect: float) -> float:
        return float(np.mean(np.interp(effect * _found(df), shifts, powers))) - POWER

    return _root(lack, 4 / math.sqrt(n))


def _smaller_sum(differences: Array) -> Array:
    """Wilcoxon's statistic of each row: the smaller one of the rank sums of the two signs."""
    ranks = np.abs(differences).argsort(axis=1).argsort(axis=1) + 1
    positive = (ranks * (differences > 0)).sum(axis=1)
    n = differences.shape[1]
    return np.minimum(positive, n * (n + 1) // 2 - positive)


@lru_cache(maxsize=64)
def _found(df: float) -> Array:
    """What a pilot may find for a spread of 1, at equal steps of its chance."""
    if math.isinf(df):
        return np.ones(1)
    steps = (np.arange(SPREADS) + 0.5) / SPREADS
    return np.asarray(np.sqrt(stats.chi2.ppf(steps, df) / df))


def _root(lack: Callable[[float], float], first: float) -> float:
    """Where a rising function of the effect is 0."""
    high = first
    while lack(high) < 0:
        high *= 2
    return float(optimize.brentq(lack, 0.0, high))
