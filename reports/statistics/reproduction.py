"""Whether a published number is among those that our own seeds let expect."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from reports.statistics.paired_tests import ERROR, all_equal, detectable_effect

MOST = 100
"""Seeds up to which a number that is enough is looked for."""

Outcome = Literal["inside", "outside", "undecidable"]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Our runs against the mean of theirs."""

    outcome: Outcome
    difference: float
    """Our mean less the published one."""
    reach: float | None
    """Half of the interval of the difference; None: our values do not vary, or there is one."""
    mdd: float | None
    """Smallest true difference that is found in 80 % of such reproductions; None: as `reach`."""
    seeds_needed: int | None
    """Where it is above the margin: seeds with which it would not be, at the spread of ours; None:
    no number up to `MOST` is enough."""


def reproduce(
    values: Sequence[float], published: float, *, runs: int, margin: float
) -> Reproduction:
    """Compare a published mean, whose spread is not known, with our own values.

    The difference of the two means has the variance s^2 (1/n + 1/m) if their m runs spread as our n
    do, so that its 95 % interval is half of our prediction interval for the mean of m more runs to
    either side: t s sqrt(1/n + 1/m). The outcome is

    - outside, where 0 is not in it: so are 5 % of what is the same;
    - else inside, where the smallest difference that would be found is at most the margin;
    - else undecidable: a difference that matters could have been missed.

    Args:
        values: Ours, by seed.
        runs: Theirs, whose mean is published: m.
        margin: Least difference that matters, above 0.

    Source:
        Meeker, Hahn, Escobar, Statistical Intervals (2017), section 4.8: the mean of m future
        observations.
    """
    n, difference = len(values), float(np.mean(values)) - published
    if n < 2 or all_equal(values):
        return Reproduction("undecidable", difference, None, None, None)
    spread = float(np.std(values, ddof=1))
    reach = float(stats.t.ppf(1 - ERROR / 2, n - 1)) * spread * math.sqrt(1 / n + 1 / runs)
    mdd = spread * _detectable(n, runs)
    outcome: Outcome = "outside" if abs(difference) > reach else "inside"
    if outcome == "inside" and mdd > margin:
        outcome = "undecidable"
    needed = _needed(spread, runs, margin) if mdd > margin else None
    return Reproduction(outcome, difference, reach, mdd, needed)


def _detectable(n: int, runs: int) -> float:
    """In spreads of one run."""
    # that of a mean of n values alone, stretched by the noise of theirs
    return detectable_effect(n) * math.sqrt(1 + n / runs)


def _needed(spread: float, runs: int, margin: float) -> int | None:
    fewest = (n for n in range(2, MOST + 1) if spread * _detectable(n, runs) <= margin)
    return next(fewest, None)
