"""One method against another, data set by data set: where it wins, and by how much on average."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reports.statistics.paired_tests import EQUAL, ERROR, LEVEL, compare_paired, holm

Values = Mapping[tuple[str, str], Mapping[int, float]]
"""Values by seed, of each (method, data set)."""


@dataclass(frozen=True, slots=True)
class Wins:
    """One method against another, over the data sets."""

    method: str
    other: str
    wins: int
    """Data sets on which it is better: p of the paired t test below 5 %, after Holm over these data
    sets."""
    ties: int
    """Data sets on which neither is shown to be better."""
    losses: int
    ahead: int
    """Data sets on which its mean is better, shown or not."""
    behind: int
    sign_p: float | None
    """Two-sided sign test that it is ahead as often as behind; None: it is neither anywhere."""
    lacking: tuple[str, ...] = ()
    """Data sets on which the two share no seed: they count nowhere."""


def wins(values: Values, method: str, other: str, datasets: Sequence[str], sign: int = 1) -> Wins:
    """Compare two methods data set by data set, each paired by the seeds that both have.

    Args:
        sign: 1 where larger is better, -1 where smaller is.

    Source:
        Counts and sign test: J. Demsar, JMLR 7 (2006), section 3.1.3.
    """
    paired = {
        dataset: compare_paired(values.get((method, dataset), {}), values.get((other, dataset), {}))
        for dataset in datasets
    }
    found = {dataset: one for dataset, one in paired.items() if one.diff is not None}
    adjusted = holm([one.p for one in found.values()])
    gains = [sign * (one.diff or 0.0) for one in found.values()]
    shown = [gain for gain, p in zip(gains, adjusted, strict=True) if p is not None and p < ERROR]
    ahead, behind = sum(g > EQUAL for g in gains), sum(g < -EQUAL for g in gains)
    won = sum(gain > 0 for gain in shown)
    return Wins(
        method, other, won, len(found) - len(shown), len(shown) - won, ahead, behind,
        float(stats.binomtest(ahead, ahead + behind).pvalue) if ahead + behind else None,
        tuple(dataset for dataset in datasets if dataset not in found),
    )  # fmt: skip


def mean_difference(
    values: Values, method: str, other: str, datasets: Sequence[str]
) -> tuple[float, float, float] | None:
    """Mean over these very data sets of the paired differences, with its 95 % interval over seeds.

    It says what other seeds on the same data sets would have given. What other data sets would have
    given is Wilcoxon's to say, which needs six of them.

    Returns:
        Mean, low and high; None: a data set has fewer than two shared seeds, or nothing varies.

    Source:
        B. L. Welch, Biometrika 34 (1947), with Satterthwaite's degrees of freedom.
    """
    means, squares, dfs = [], [], []
    for dataset in datasets:
        mine, theirs = values.get((method, dataset), {}), values.get((other, dataset), {})
        differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        if len(differences) < 2:
            return None
        means.append(float(np.mean(differences)))
        squares.append(float(np.var(differences, ddof=1)) / len(differences))
        dfs.append(len(differences) - 1)
    total = sum(squares)
    if not means or total <= EQUAL**2:
        return None
    df = total**2 / sum(one**2 / n for one, n in zip(squares, dfs, strict=True))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, df)) * math.sqrt(total) / len(means)
    mean = float(np.mean(means))
    return mean, mean - reach, mean + reach
