"""Asynchronous successive halving: at each rung the worse trials end (Li et al., MLSys 2020)."""

from collections.abc import Mapping, Sequence

from search.tune.schedulers import base
from search.tune.schedulers._rungs import Rungs, epochs_of_rungs
from spaces.sections import SchedulerConfig
from spaces.space import Space


class Scheduler(base.Scheduler):
    """Of `reduction_factor` trials that reach a rung, one goes on; the first is `grace_epochs`.

    A trial is compared with those that reached the rung before it and waits for nobody, as Ray
    Tune's `ASHAScheduler` does it.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        settings = space.scheduler
        self._rungs = Rungs(settings.grace_epochs, settings.reduction_factor)

    def decisions(self, trial: str, epochs: int) -> Sequence[int]:
        """See `base.Scheduler.decisions`."""
        return self._rungs.below(epochs)

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """See `base.Scheduler.goes_on`."""
        return self._rungs.goes_on(trial, epoch, values)

    @staticmethod
    def shares(settings: SchedulerConfig, epochs: int) -> Mapping[int, float]:
        """See `base.Scheduler.shares`."""
        rungs = epochs_of_rungs(settings.grace_epochs, settings.reduction_factor, epochs)
        return dict.fromkeys(rungs, 1 / settings.reduction_factor)

    @staticmethod
    def least(settings: SchedulerConfig, epochs: int) -> float:
        """See `base.Scheduler.least`."""
        return min(settings.grace_epochs, epochs)

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """See `base.Scheduler.text`."""
        grace, factor = settings.grace_epochs, settings.reduction_factor
        return f"{settings.name} from epoch {grace} on: one of {factor} goes on"
