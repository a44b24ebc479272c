"""Tune asks the scheduler of a study, which knows the trials of earlier drivers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.tune.schedulers.base import Scheduler, Successor, can_stop, scheduler_class
from search.workers.trial_progress import LAST
from spaces.space import Space
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState, TrialState
from tcpa_core.record.values import COSTS


def compared_by_epoch(space: Space) -> list[str]:
    """What a `StudyState` has to keep beside the first objective, so that trials can be compared by
    several."""
    several = space.objective if len(space.objective) > 1 else ()
    return [one.metric for one in several if one.metric not in COSTS]


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]
    """Tune's scheduler: it asks that of the space.

    Args:
        space: Names it.
        past: What earlier drivers have reported; the scheduler learns from it. It has kept
            `compared_by_epoch`.
    """

    def __init__(self, space: Space, past: StudyState) -> None:
        super().__init__()
        self.on_successor: Callable[[Successor], None] = lambda successor: None
        """Called with what is trained in place of a trial, before that one is stopped."""
        self._objectives = space.objective
        self._raced = space.seeds[1:] if space.races_seeds else ()
        """Further seeds of a race: what it compares are values of whole trials."""
        made = scheduler_class(space.scheduler.name)
        self.scheduler = made(space) if can_stop(space.objective) else Scheduler(space)
        self._kept = past.others
        self._due: dict[str, int] = {}
        """Trials that an earlier driver was about to stop when it ended, and at which epoch."""
        self._rebuild(past)

    def decisions(self, planned: Planned) -> list[int]:
        """Epochs of which Tune hears, each a step of its loop: the last one, and where it may end
        before."""
        epochs = planned.config.train.epochs
        if planned.seed in self._raced:
            return [epochs]
        before = self.scheduler.decisions(planned.trial, epochs)
        return [*(epoch for epoch in before if epoch > planned.begins_after), epochs]

    def count(self, trial: TrialState) -> None:
        """Let the values of a trial count that nobody trains, as if it had reported them."""
        for epoch in self.decisions(trial.planned):
            if (values := self._recorded(trial, epoch)) is not None:
                self._goes_on(trial.planned.trial, epoch, values)

    def join(self, planned: Planned) -> None:
        """Know a trial of the study, before it reports."""
        self.scheduler.join(planned)

    def due_successors(self) -> list[Successor]:
        """What an earlier driver was about to plan when it ended, asked for once."""
        found = (self.scheduler.successor(trial) for trial in self._due)
        return [successor for successor in found if successor]

    def _rebuild(self, past: StudyState) -> None:
        """Let every value that was reported at a decision count again, in the same order."""
        for one in past.trials.values():
            self.join(one.planned)
        decisions = {name: self.decisions(one.planned) for name, one in past.trials.items()}
        # In the order of the reports: whether a value stops its trial depends on those before it.
        for trial, epoch in past.reports():
            if epoch not in decisions[trial]:
                continue
            values = self._recorded(past.trials[trial], epoch)
            if values is None:
                continue
            self._due.pop(trial, None)  # it went on
            if not self._goes_on(trial, epoch, values):
                self._due[trial] = epoch
        for name, one in past.trials.items():
            # One that has ended is not taken up again, so there is nobody to stop.
            if one.ended is not None:
                self._due.pop(name, None)

    def _goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        better = [one.utility(v) for one, v in zip(self._objectives, values, strict=True)]
        return self.scheduler.goes_on(trial, epoch, better)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on after a decision."""
        name, epoch, values = _name(trial), result.get("epoch"), self._values(result)
        if epoch is None or values is None:
            return str(TrialScheduler.CONTINUE)
        # `_due`: decided by the values of then, which later ones must not change.
        stops = self._due.get(name) == epoch or not self._goes_on(name, epoch, values)
        if stops and (successor := self.scheduler.successor(name)):
            self.on_successor(successor)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let the last epoch count, as measured then; the result's own value is the selected."""
        values = self._values(result)
        if "epoch" in result and values is not None:
            self._goes_on(_name(trial), result["epoch"], values)

    def _values(self, result: Mapping[str, Any]) -> list[float] | None:
        """The objectives in a report; None: it lacks one."""
        metrics = [one.metric for one in self._objectives]
        return _whole([result.get(f"{LAST}{metric}", result.get(metric)) for metric in metrics])

    def _recorded(self, trial: TrialState, epoch: int) -> list[float] | None:
        """The objectives at an epoch as the journal has them; None: it lacks one."""
        if len(self._objectives) == 1:
            return _whole([trial.values.get(epoch)])
        costs = (trial.started.costs if trial.started else None) or {}
        found: list[float | None] = []
        for one in self._objectives:
            if one.metric in COSTS:  # of a trial that was reused, its end alone says them
                otherwise = getattr(trial.result, one.metric, None)
                found.append(costs.get(one.metric, otherwise))
                continue
            place = self._kept.index(one.metric)
            values = {n: kept[place] for n, kept in trial.others.items() if n <= epoch}
            # In all so far, as of a trial that has ended.
            is_time = one.metric == "duration_s"
            found.append(sum(v or 0.0 for v in values.values()) if is_time else values.get(epoch))
        return _whole(found)


def _whole(values: Sequence[float | None]) -> list[float] | None:
    known = [float(value) for value in values if value is not None]
    return known if len(known) == len(values) else None


def _name(trial: Any) -> str:
    """Our name of a Tune trial, whose own id is another one under every driver."""
    return str(trial.config["trial"])
