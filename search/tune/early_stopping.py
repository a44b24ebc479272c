"""Ray Tune's part: when trials are stopped early, and its loop without what is not used of it."""

from types import SimpleNamespace
from typing import Any, cast

from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from search.tune.trial_handle import LAST
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.record.state import StudyState

_PER_EPOCH = ("val_accuracy", "val_loss")


class Schedule:
    """Who stops the trials of a space early, and when."""

    def __init__(self, space: Space) -> None:
        self._space = space

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

    def scheduler(self, past: StudyState) -> TrialScheduler:
        """Tune's scheduler, which has learnt from the trials of earlier drivers."""
        if not self._is_asha():
            return FIFOScheduler()
        objective = self._space.objective[0]
        asha = _Asha(
            time_attr="epoch",
            metric=objective.metric,
            mode="max" if objective.maximize else "min",
            max_t=self._space.most_epochs,
            grace_period=self._space.scheduler.grace_epochs,
            reduction_factor=self._space.scheduler.reduction_factor,
        )
        self._rebuild(asha, past)
        return asha

    def _rebuild(self, asha: "_Asha", past: StudyState) -> None:
        """Let every value that was reported at a decision count again, in the same order."""
        decisions = {name: self.decisions(t.planned.config) for name, t in past.trials.items()}
        for trial, epoch, value in past.reports():
            if epoch not in decisions[trial] or value is None:
                continue
            asha.due.pop(trial, None)  # it went on
            if asha.counts(trial, epoch, value) == TrialScheduler.STOP:
                asha.due[trial] = epoch
        for name, one in past.trials.items():
            if one.ended is not None:
                asha.due.pop(name, None)

    def _is_asha(self) -> bool:
        """Whether trials are stopped early: one objective, known after every epoch."""
        space = self._space
        if space.ablation or space.scheduler.name != "asha" or len(space.objective) > 1:
            return False
        in_reach = space.scheduler.grace_epochs < space.most_epochs
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
    """ASHA that knows trials by our names, so that one taken up again counts once at each rung."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.due: dict[str, int] = {}
        """Trials that an earlier driver was about to stop when it ended, and at which epoch."""

    def counts(self, trial: str, epoch: int, value: float) -> str:
        """Let a value count at its rung; whether the trial goes on from there."""
        (bracket,) = self._brackets
        named = SimpleNamespace(trial_id=trial)
        return cast(str, bracket.on_result(named, epoch, self._metric_op * value))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: there is one bracket for all."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on after a decision epoch."""
        name, epoch, value = _name(trial), result.get("epoch"), result.get(self._metric)
        if epoch is None or value is None:
            return str(TrialScheduler.CONTINUE)
        if epoch >= self._max_t or self.due.get(name) == epoch:
            return str(TrialScheduler.STOP)
        return self.counts(name, epoch, value)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let the last epoch count, as measured then; the result's own value is the selected."""
        value = result.get(f"{LAST}{self._metric}", result.get(self._metric))
        if "epoch" in result and value is not None:
            self.counts(_name(trial), result["epoch"], value)


def _name(trial: Any) -> str:
    """Our name of a Tune trial, whose own id is another one under every driver."""
    return str(getattr(trial, "config", {}).get("trial", trial.trial_id))
