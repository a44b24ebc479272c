"""How fast a study trains and how long it still takes, from the epochs of its trials.

Trials that share a pack end together, so that the number that has ended says little: what counts
are epochs, each weighted with the seconds that one of its chain of methods takes on a device. How
many epochs a trial still has is estimated from the share of the others that was stopped early at
each epoch (Kaplan and Meier, JASA 1958), trials that still run counting as far as they have come.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from search.study.outline import Outline
from search.tune.schedulers.base import scheduler_class
from spaces.sections import SchedulerConfig
from tcpa_core.record.state import StudyState, TrialState


@dataclass(frozen=True, slots=True)
class Pace:
    """What is trained, what is left, and how fast it goes. None: not known."""

    epochs: int
    """Trained so far, by all drivers."""
    epochs_left: float | None
    """About."""
    epochs_per_h: float | None
    """Of the driver that runs or ran last; of all of them before it has trained enough."""
    left_s: float | None
    """About: seconds until the study ends, at that speed or as its budget of time has it."""

    @classmethod
    def of(
        cls, state: StudyState, outline: Outline, total: int | None, now: float | None
    ) -> "Pace":
        """The pace of a study.

        Args:
            total: Trials that it will have; None: not known.
            now: Unix time in seconds; None: no driver runs.
        """
        # What earlier studies have trained says nothing of this one's pace.
        trials = [one for one in state.trials.values() if one.reused is None]
        total = None if total is None else total - (len(state.trials) - len(trials))
        running = [one for one in trials if now and state.is_training(one)]
        weights = _Weights(trials)
        work = _Work(weights, _further(trials, outline.scheduler))
        left = work.until_end(trials, total)
        speed = _speed(state, weights, len(running))
        times = []
        if speed and now:
            # What was trained since the last report is not left any more.
            ahead_s = max(0.0, now - state.trained_at) if running and state.trained_at else 0.0
            if left:
                times.append(max(0.0, left[1] / speed[1] - ahead_s))
            budget_s = _budget_left(state, outline, now)
            if budget_s is not None:  # trials that run when it is spent still end
                times.append(max(budget_s, work.of(running)[1] / speed[1] - ahead_s))
        elif speed and left:
            times.append(left[1] / speed[1])
        return cls(
            epochs=sum(one.trained for one in trials),
            epochs_left=left[0] if left else None,
            epochs_per_h=3600 * speed[0] if speed else None,
            left_s=min(times, default=None),
        )


class _Weights:
    """Seconds that an epoch of each chain of methods takes on a device."""

    def __init__(self, trials: Iterable[TrialState]) -> None:
        seconds: dict[str, list[float]] = defaultdict(list)
        for one in trials:
            if found := _epoch_s(one):
                seconds[_chain(one)].append(found)
        every = [s for found in seconds.values() for s in found]
        self._mean = fsum(every) / len(every) if every else 1.0
        self._of = {chain: fsum(found) / len(found) for chain, found in seconds.items()}

    def of(self, trial: TrialState) -> float:
        """Of this trial's chain; where none is measured, as of the others."""
        return self._of.get(_chain(trial), self._mean)


class _Work:
    """Epochs, and the seconds of a device that they take."""

    def __init__(self, weights: _Weights, further: Mapping[int, Sequence[float]]) -> None:
        self._weights, self._further = weights, further

    def of(self, trials: Iterable[TrialState]) -> tuple[float, float]:
        """What these still have."""
        epochs = [(self._left(one, one.epoch), self._weights.of(one)) for one in trials]
        return fsum(n for n, _ in epochs), fsum(n * weight for n, weight in epochs)

    def until_end(
        self, trials: Sequence[TrialState], total: int | None
    ) -> tuple[float, float] | None:
        """What a study of so many trials still has; None: not known."""
        if total is None or not trials or any(one.epochs is None for one in trials):
            return None
        epochs, seconds = self.of(one for one in trials if one.ended is None)
        coming = max(0, total - sum(one.planned.parent is None for one in trials))
        # Those to come are taken to be like these, from their first epoch on.
        fresh = [(self._left(one, 0), self._weights.of(one)) for one in trials if coming]
        epochs += coming / len(trials) * fsum(n for n, _ in fresh)
        return epochs, seconds + coming / len(trials) * fsum(n * weight for n, weight in fresh)

    def _left(self, trial: TrialState, epoch: int) -> float:
        ahead = self._further.get(trial.epochs or 0, ())
        return ahead[epoch] if epoch < len(ahead) else 0.0


def _further(
    trials: Sequence[TrialState], scheduler: SchedulerConfig
) -> dict[int, Sequence[float]]:
    """By the number of epochs of a trial: how many it still has after each, on average."""
    most = max((one.epochs or 0 for one in trials), default=0)
    reached, ended = [0.0] * (most + 2), [0.0] * (most + 2)
    for one in trials:
        # One that runs is not decided yet at the epoch at which it stands.
        epoch = one.planned.begins_after + one.trained
        last = min(epoch if one.ended else epoch - 1, most)
        if last >= 1:
            reached[last] += 1
        # Of a population another one trains on in its place.
        if one.ended is not None and not scheduler.herd and 1 <= last < (one.epochs or 0):
            ended[last] += 1
    for epoch in range(most, 0, -1):
        reached[epoch] += reached[epoch + 1]
    # Until trials tell, as the scheduler is meant.
    for epoch, share in (scheduler_class(scheduler.name).shares(scheduler, most) or {}).items():
        reached[epoch] += 1
        ended[epoch] += 1 - share
    goes_on = [1 - e / r if r else 1.0 for e, r in zip(ended, reached, strict=True)]
    found: dict[int, Sequence[float]] = {}
    for epochs in {one.epochs for one in trials if one.epochs}:
        ahead = [0.0] * (epochs + 1)
        for epoch in range(epochs - 1, -1, -1):
            is_last = epoch + 1 >= epochs
            ahead[epoch] = 1 + (0.0 if is_last else goes_on[epoch + 1] * ahead[epoch + 1])
        found[epochs] = ahead
    return found


def _speed(state: StudyState, weights: _Weights, num_running: int) -> tuple[float, float] | None:
    """Epochs, and seconds of a device, that are trained in a second; None: not known."""
    since, until = state.training_since(), state.trained_at
    here_s = until - since if since is not None and until is not None else 0.0
    trials = [one for one in state.trials.values() if one.reused is None]
    here = [
        (one.trained - one.from_epoch, weights.of(one))
        for one in trials
        if one.driver == state.num_drivers
    ]
    # Before every trial that runs had its turn, the first pack alone would be all that is seen:
    # until then, earlier drivers count as well.
    if here_s > 0 and sum(n for n, _ in here) >= max(1, num_running):
        return _rates(here, here_s)
    if state.earlier_s > 0:
        every = [(one.trained, weights.of(one)) for one in trials]
        return _rates(every, state.earlier_s + max(0.0, here_s))
    return None


def _rates(epochs: Sequence[tuple[int, float]], seconds: float) -> tuple[float, float] | None:
    num = sum(n for n, _ in epochs)
    work = fsum(n * weight for n, weight in epochs)
    return (num / seconds, work / seconds) if num > 0 and work > 0 else None


def _budget_left(state: StudyState, outline: Outline, now: float) -> float | None:
    """Seconds until no trial may start any more; None: time is not limited."""
    budget, spent, left = outline.budget, state.spent, []
    if budget.hours is not None:
        left.append(3600 * (budget.hours - spent.hours(now)))
    if budget.gpu_hours is not None:
        gpus = spent.gpus or 1
        left.append(3600 * (budget.gpu_hours - spent.gpu_hours(gpus, now)) / gpus)
    return max(0.0, min(left)) if left else None


def _epoch_s(trial: TrialState) -> float | None:
    """Seconds of one of its epochs on a device; None: not measured."""
    result: Any = trial.result
    if result is not None and result.num_epochs and result.duration_s:
        return float(result.duration_s / result.num_epochs)
    return trial.report.duration_s if trial.report else None


def _chain(trial: TrialState) -> str:
    methods = trial.planned.params.get("methods")
    return "+".join(methods) if isinstance(methods, list) else str(methods)
