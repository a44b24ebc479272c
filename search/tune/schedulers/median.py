"""Median stopping rule of Vizier (Golovin et al., KDD 2017, section 3.2.1)."""

from bisect import insort
from collections.abc import Sequence

from search.tune.schedulers import base
from spaces.sections import SchedulerConfig
from spaces.space import Space

MIN_SAMPLES = 3
"""Others to compare with where a space does not say, as in Ray Tune."""


class Scheduler(base.Scheduler):
    """After epoch e a trial ends whose best value so far is below the median of the others' means.

    The mean of another trial is that of its values up to epoch e; those count that reached epoch e
    before, whether they run, were stopped or have completed. All values count from `grace_epochs`
    on, and no trial ends before `min_samples` others have come as far. Decisions and values are
    those of Ray Tune's `MedianStoppingRule` with `hard_stop`.
    """

    reads = frozenset({"min_samples"})
    has_one_objective = True

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._grace = space.scheduler.grace_epochs
        self._min_samples = space.scheduler.min_samples or MIN_SAMPLES
        self._values: dict[str, list[float]] = {}
        """Of each trial, from the grace epoch on."""
        self._means: dict[int, list[float]] = {}
        """By epoch: the means of those that reached it, rising."""

    def decisions(self, trial: str, epochs: int) -> Sequence[int]:
        """See `base.Scheduler.decisions`."""
        return range(self._grace, epochs)

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """See `base.Scheduler.goes_on`."""
        own = self._values.setdefault(trial, [])
        if epoch != self._grace + len(own):  # it counts already, or is below the grace epoch
            return True
        own.append(values[0])
        means = self._means.setdefault(epoch, [])
        goes_on = len(means) < self._min_samples or max(own) >= _median(means)
        insort(means, sum(own) / len(own))
        return goes_on

    @staticmethod
    def shares(settings: SchedulerConfig, epochs: int) -> None:
        """See `base.Scheduler.shares`: whoever is worse than the others ends, however many."""

    @staticmethod
    def least(settings: SchedulerConfig, epochs: int) -> float:
        """See `base.Scheduler.least`."""
        return min(settings.grace_epochs, epochs)

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """See `base.Scheduler.text`."""
        return (
            f"{settings.name} from epoch {settings.grace_epochs} on: a trial ends whose best value "
            f"is worse than the median of the means of at least "
            f"{settings.min_samples or MIN_SAMPLES} others"
        )


def _median(ranked: Sequence[float]) -> float:
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
