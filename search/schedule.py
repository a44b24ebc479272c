"""Ray Tune's part: when trials are stopped early, and its loop without what is not used of it."""

from types import SimpleNamespace
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from search.past import Past
from spaces.space import Space
from tcpa_core.config import TrainConfig, TrialConfig

_PER_EPOCH = ("val_accuracy", "val_loss")


class Schedule:
    """Who stops the trials of a space early, and when."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._most_epochs = _most_epochs(space)

    def decisions(self, config: TrialConfig) -> list[int]:
        """Epochs at which the scheduler may end a trial: ASHA's rungs and the last epoch."""
        epochs = config.train.epochs
        scheduler = self._space.scheduler
        rungs = []
        if self._is_asha():
            rung = scheduler.grace_epochs
            while rung < epochs:
                rungs.append(rung)
                rung *= scheduler.reduction_factor
        return [*rungs, epochs]

    def scheduler(self, past: Past) -> TrialScheduler:
        """Tune's scheduler, which has learnt from the trials of earlier drivers."""
        if not self._is_asha():
            return FIFOScheduler()
        objective = self._space.objective[0]
        asha = _Asha(
            time_attr="epoch",
            metric=objective.metric,
            mode="max" if objective.maximize else "min",
            max_t=self._most_epochs,
            grace_period=self._space.scheduler.grace_epochs,
            reduction_factor=self._space.scheduler.reduction_factor,
        )
        for trial, planned in past.planned.items():
            values = past.values.get(trial, {})
            for epoch in set(self.decisions(planned.config)) & values.keys():
                asha.remember(trial, epoch, values[epoch])
        return asha

    def _is_asha(self) -> bool:
        """Whether trials are stopped early: one objective, known after every epoch."""
        space = self._space
        if space.ablation or space.scheduler.name != "asha" or len(space.objective) > 1:
            return False
        in_reach = space.scheduler.grace_epochs < self._most_epochs
        return in_reach and space.objective[0].metric in _PER_EPOCH


class Controller(TuneController):  # type: ignore[misc]
    """Tune's controller without snapshots and without a memory of what has ended.

    A study is taken up from its journal alone. Tune keeps every trial for its snapshots and its
    final analysis, 40 KiB each, which are not used here.
    """

    _trials: list[Any]

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write nothing."""

    def on_step_end(self) -> None:
        """Forget trials that have ended."""
        super().on_step_end()
        if len(self._trials) > 2 * len(self._live_trials) + 100:
            self._trials = [trial for trial in self._trials if not trial.is_finished()]
            for ended in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
                ended.clear()


class _Asha(ASHAScheduler):  # type: ignore[misc]
    """ASHA that can be told of the trials of an earlier driver."""

    def remember(self, trial: str, epoch: int, value: float) -> None:
        """Let a value count at its rung."""
        self._brackets[0].on_result(SimpleNamespace(trial_id=trial), epoch, self._metric_op * value)


def _most_epochs(space: Space) -> int:
    """Epochs of the longest trial that a space can hold."""
    axis = space.axes.get("train.epochs")
    if axis is None:
        return int(space.base.get("train.epochs", TrainConfig().epochs))
    return int(max(axis.ends()))
