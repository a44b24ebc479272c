"""When trials are stopped early, and what Tune's scheduler knows of those of earlier drivers."""

from collections.abc import Mapping

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.tune.internals import Asha
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState

_PER_EPOCH = ("val_accuracy", "val_miou", "val_loss")


class Schedule:
    """Who stops the trials of a space early, and when."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def decisions(self, config: TrialConfig) -> list[int]:
        """Epochs at which the scheduler may end a trial: ASHA's rungs and the last epoch."""
        epochs = config.train.epochs
        scheduler = self._space.scheduler
        # Tune hears of no other epochs: each report is a step of its loop.
        rungs = []
        if self._is_asha():
            rung = scheduler.grace_epochs
            while rung < epochs:
                rungs.append(rung)
                rung *= scheduler.reduction_factor
        return [*rungs, epochs]

    def scheduler(self, past: StudyState) -> TrialScheduler:
        """Tune's scheduler, which has learnt from the trials of earlier drivers."""
        if not self._is_asha():
            return FIFOScheduler()
        objective = self._space.objective[0]
        asha = Asha(
            time_attr="epoch",
            metric=objective.metric,
            mode="max" if objective.maximize else "min",
            max_t=self._space.most_epochs,
            grace_period=self._space.scheduler.grace_epochs,
            reduction_factor=self._space.scheduler.reduction_factor,
        )
        self._rebuild(asha, past)
        return asha

    def count(
        self, scheduler: TrialScheduler, planned: Planned, values: Mapping[int, float | None]
    ) -> None:
        """Let the values of a trial count that nobody trains, as if it had reported them."""
        if not isinstance(scheduler, Asha):
            return
        for epoch in self.decisions(planned.config):
            if (value := values.get(epoch)) is not None:
                scheduler.counts(planned.trial, epoch, value)

    def _rebuild(self, asha: Asha, past: StudyState) -> None:
        """Let every value that was reported at a decision count again, in the same order."""
        decisions = {name: self.decisions(t.planned.config) for name, t in past.trials.items()}
        # In the order of the reports: whether a value stops its trial depends on those before it.
        for trial, epoch, value in past.reports():
            if epoch not in decisions[trial] or value is None:
                continue
            asha.due.pop(trial, None)  # it went on
            if asha.counts(trial, epoch, value) == TrialScheduler.STOP:
                asha.due[trial] = epoch
        for name, one in past.trials.items():
            # One that has ended is not taken up again, so there is nobody to stop.
            if one.ended is not None:
                asha.due.pop(name, None)

    def _is_asha(self) -> bool:
        """Whether trials are stopped early: one objective, known after every epoch."""
        space = self._space
        if space.ablation or space.scheduler.name != "asha" or len(space.objective) > 1:
            return False
        in_reach = space.scheduler.grace_epochs < space.most_epochs
        return in_reach and space.objective[0].metric in _PER_EPOCH
