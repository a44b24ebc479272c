"""Means, intervals, paired tests and effect sizes over seeds. Nothing here knows tables or files.

Replicates are seeds. Two settings are compared by the differences of the seeds they share: seed s
gives both the same initial values, batches and augmentation, so their noise is partly common.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence of every interval."""
FEW = 3
"""With fewer replicates an interval is too wide to say much; tables warn."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean of n values. None: not defined (mean for n = 0, std and interval for n < 2)."""

    n: int
    mean: float | None
    std: float | None
    """Sample standard deviation (divisor n - 1)."""
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Paired:
    """Mean difference over the n replicates that both sides have.

    None: not defined. The difference needs n >= 1; the interval n >= 2; p and dz also need
    differences that are not all equal.
    """

    n: int
    diff: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided paired t test."""
    dz: float | None
    """Paired Cohen's d: mean difference over the standard deviation of the differences."""


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student's 95 % interval of the mean.

    Args:
        values: Finite numbers, one per replicate.
    """
    n = len(values)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, None, None, None)
    std = float(np.std(values, ddof=1))
    margin = _margin(std, n)
    return Summary(n, mean, std, mean - margin, mean + margin)


def compare_paired(values: Mapping[Hashable, float], baseline: Mapping[Hashable, float]) -> Paired:
    """Compare two settings by the replicates they share.

    Args:
        values: Replicate (seed) -> finite value.
        baseline: The same for the setting compared with.

    Source:
        dz: Lakens, "Calculating and reporting effect sizes", Front. Psychol. 4 (2013), Eq. 6.
    """
    shared = [key for key in values if key in baseline]
    differences = [values[key] - baseline[key] for key in shared]
    mean = summarise(differences)
    if mean.n < 2 or mean.mean is None or mean.std is None:
        return Paired(mean.n, mean.mean, None, None, None, None)
    # Differences that are equal but for rounding have no spread to test against.
    scale = max(abs(values[key]) for key in shared)
    if mean.std <= 1e-12 * max(scale, 1e-300):
        return Paired(mean.n, mean.mean, mean.low, mean.high, None, None)
    t = mean.mean / (mean.std / math.sqrt(mean.n))
    p = float(2 * stats.t.sf(abs(t), mean.n - 1))
    return Paired(mean.n, mean.mean, mean.low, mean.high, p, mean.mean / mean.std)


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


def _margin(std: float, n: int) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * std / math.sqrt(n)
