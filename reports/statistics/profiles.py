"""How methods do on several data sets over all their seeds: profiles, aggregates, improvement.

Scores are larger-is-better fractions. A method's runs are one array of scores by seed for each data
set; data sets weigh the same, however many seeds each has. Bands and intervals are percentiles of a
bootstrap over the seeds within each data set: they say what other seeds on these very data sets
would have given, and with three seeds they are too narrow.

Source:
    R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice",
    NeurIPS 2021 (rliable); the profiles after E. Dolan and J. More, Math. Program. 91 (2002).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from reports.statistics.paired_tests import ERROR, RESAMPLES, Array

Runs = Sequence[Array]
"""Scores of one method: for each data set an array over its seeds."""
Interval = tuple[float, float, float]
"""Estimate, low and high."""
TRIMMED = 0.25
"""Share of the scores that an interquartile mean leaves out at each end."""


def profile(runs: Runs, taus: Array) -> Array:
    """Share of runs that score above each threshold, as (tau, 3): share, low, high.

    Args:
        taus: Thresholds in the unit of the scores.

    Source:
        Agarwal et al., Eq. 1 ("score distributions"), with strict inequality.
    """
    above = [(scores[:, None] > taus).astype(float) for scores in runs]
    shares = np.mean([one.mean(axis=0) for one in above], axis=0)
    draws = sum(w @ one for w, one in zip(_weights(runs, 0), above, strict=True)) / len(runs)
    return np.column_stack([shares, *_percentiles(draws)])


def improvement(first: Runs, second: Runs) -> Interval:
    """Chance that a run of the first method beats one of the second, a tie counting half.

    Args:
        first: On the same data sets, in the same order, as `second`; numbers of seeds may differ.

    Source:
        Agarwal et al., section 4.3: the mean over tasks of Mann and Whitney's U over the pairs.
    """
    wins = [
        (x[:, None] > y) + (x[:, None] == y) / 2
        for x, y in ((one, other) for one, other in zip(first, second, strict=True))
    ]
    chance = float(np.mean([one.mean() for one in wins]))
    draws = np.zeros(RESAMPLES)
    for x, y, one in zip(_weights(first, 1), _weights(second, 2), wins, strict=True):
        draws += np.einsum("ri,ij,rj->r", x, one, y)
    low, high = _percentiles(draws / len(wins))
    return chance, float(low), float(high)


AGGREGATES: dict[str, Callable[[Array], Any]] = {
    "mean": lambda scores: scores.mean(axis=(-2, -1)),
    "median": lambda scores: np.median(scores.mean(axis=-2), axis=-1),
    "iqm": lambda scores: stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), TRIMMED, axis=-1),
    "optimality_gap": lambda scores: 1 - np.minimum(scores, 1).mean(axis=(-2, -1)),
}
"""By name, of scores (..., seeds, data sets): mean; median of the means of data sets; interquartile
mean over all runs; how far scores lie below 1 on average (smaller is better)."""


def aggregates(runs: Runs) -> dict[str, Interval]:
    """The aggregates of one method, each with its interval.

    They weigh runs, so each data set has as many: where numbers of seeds differ, the first ones up
    to the smallest number take part.
    """
    num = min(map(len, runs))
    scores = np.column_stack([one[:num] for one in runs])
    random = np.random.default_rng(3)
    rows = random.integers(num, size=(RESAMPLES, *scores.shape))
    drawn = np.take_along_axis(scores[None], rows, axis=1)
    found = {}
    for name, of in AGGREGATES.items():
        low, high = _percentiles(of(drawn))
        found[name] = float(of(scores)), float(low), float(high)
    return found


def _weights(runs: Runs, stream: int) -> Sequence[Array]:
    """For each data set how often a resample draws each seed, as shares (resamples, seeds)."""
    return _shares(tuple(map(len, runs)), stream)


@lru_cache(maxsize=64)
def _shares(seeds: tuple[int, ...], stream: int) -> Sequence[Array]:
    random = np.random.default_rng(stream)
    return [random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n for n in seeds]


def _percentiles(draws: Any) -> Array:
    return np.quantile(draws, [ERROR / 2, 1 - ERROR / 2], axis=0)
