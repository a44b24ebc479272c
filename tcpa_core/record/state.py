"""A study up to now: the one fold over the events of a journal.

Status, the live view, resuming, confirmations, costs, MLflow and reports all read a `StudyState`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tcpa_core.errors import RecordError
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Extended,
    Finished,
    Learned,
    Notice,
    Planned,
    Resumed,
    Reused,
    Started,
    Stopped,
    StudyBegun,
    Tested,
    TrialEvent,
)
from tcpa_core.record.scores import Score, score_of
from tcpa_core.record.values import EpochReport, TrialResult

Progress = Literal["planned", "running", "completed", "pruned", "failed"]

_PHASES: Mapping[type[Event], str] = {
    StudyBegun: "interrupted",  # unless a driver ends it in order
    Resumed: "interrupted",
    Finished: "finished",
    Stopped: "stopped",
    Extended: "extended",
}
_BETWEEN_DRIVERS = (StudyBegun, Resumed, Extended)
"""Events before which no driver ran."""


@dataclass(slots=True)
class Spent:
    """The time that drivers have run, by the journal's clock; also of the one that runs."""

    seconds: dict[float | None, float] = field(default_factory=dict)
    """By the number of GPUs that were held; None: not recorded."""
    gpus: float | None = None
    since: float | None = None
    """Time of the last event; None: there was none."""

    def take(self, event: Event) -> None:
        """Count the time up to an event, if a driver ran then."""
        if event.began is not None:
            self.begin(event.began, event.gpus)
        if not isinstance(event, _BETWEEN_DRIVERS):
            self.seconds = self._until(event.t)
        self.since = event.t
        if isinstance(event, _BETWEEN_DRIVERS):
            self.gpus = None
        self.gpus = self.gpus if event.gpus is None else event.gpus

    def begin(self, began: float, gpus: float | None) -> None:
        """From now on a driver's time counts; its start did not."""
        self.since, self.gpus = began, gpus

    def hours(self, now: float | None = None) -> float:
        """Wall time up to the last event, or up to a time at which the last driver still runs."""
        return sum(self._until(now).values()) / 3600

    def gpu_hours(self, otherwise: float, now: float | None = None) -> float:
        """The same times GPUs; without one, the machine counts as one.

        Args:
            otherwise: GPUs where they were not recorded.
        """
        by_gpus = self._until(now).items()
        hours = (s / 3600 * ((otherwise if gpus is None else gpus) or 1) for gpus, s in by_gpus)
        return sum(hours)

    def _until(self, now: float | None) -> dict[float | None, float]:
        if now is None or self.since is None:
            return self.seconds
        more = max(0.0, now - self.since)  # a clock that is set back takes nothing away
        return {**self.seconds, self.gpus: self.seconds.get(self.gpus, 0.0) + more}


@dataclass(slots=True)
class TrialState:
    """One trial."""

    planned: Planned
    status: Progress = "planned"
    epoch: int = 0
    """The last one recorded."""
    values: dict[int, float | None] = field(default_factory=dict)
    """What the study looks at (`StudyState.metric`) by epoch, as first recorded."""
    others: dict[int, tuple[float | None, ...]] = field(default_factory=dict)
    """`StudyState.others` by epoch, as first recorded."""
    started: Started | None = None
    """Its last start."""
    reused: Reused | None = None
    """The trial of an earlier study whose record it has; None: it is trained here."""
    ended: Ended | None = None
    """None: not yet, or started again since."""
    tested: Tested | None = None
    report: EpochReport | None = None
    """Of its last epoch."""
    # What follows is of the pace of drivers, which a kept copy of a journal does not know.
    driver: int | None = field(default=None, compare=False)
    """Which of the study's drivers started it last, as of `StudyState.num_drivers`."""
    from_epoch: int = field(default=0, compare=False)
    """Epochs that earlier drivers have trained of it."""
    told_at: float | None = field(default=None, compare=False)
    """When its last epoch or its end was recorded, in seconds of Unix time."""

    @property
    def epochs(self) -> int | None:
        """Epochs that it may train; None: not recorded."""
        found = self.planned.params.get("train.epochs")
        return found if isinstance(found, int) else None

    @property
    def trained(self) -> int:
        """Epochs trained so far, without those of the trial whose state it began from."""
        if self.ended is None:
            return self.epoch - self.planned.begins_after
        return self.ended.result.num_epochs or 0

    def began(self) -> float | None:
        """When the driver that started it last began to train it, at the latest; None: not known.

        A start is recorded together with the first epoch, so that told times alone are too late.
        """
        took_s, num = None, self.trained
        if self.ended is not None:
            took_s = self.ended.result.duration_s
        elif self.report is not None:
            took_s = num * (self.report.duration_s or 0.0)
        if self.told_at is None or not took_s or num <= self.from_epoch:
            return None
        return self.told_at - took_s * (num - self.from_epoch) / num

    @property
    def result(self) -> TrialResult | None:
        """Its outcome; None: it has not ended."""
        return None if self.ended is None else self.ended.result

    @property
    def test_accuracy(self) -> float | None:
        """Of its selected epoch; None: the test split was not read for it."""
        return self.on_test("test_accuracy")

    @property
    def score(self) -> Score:
        """By what it is compared with others of its task."""
        return score_of(self.planned.params)

    @property
    def test_score(self) -> float | None:
        """Its task's score on test, of its selected epoch; None: test was not read for it."""
        return self.on_test(self.score.test)

    def on_test(self, name: str) -> float | None:
        """A number of its selected epoch on test; None: it was not measured.

        Args:
            name: Field of `Tested`.
        """
        found: float | None = getattr(self.tested or self.result, name, None)
        return found

    def value(self, metric: str) -> float | None:
        """A number of its outcome that counts: None unless it has completed."""
        result = self.result
        if result is None or result.status != "completed":
            return None
        found: float | None = getattr(result, metric, None)
        return found


class StudyState:
    """What the events so far say of a study.

    Args:
        metric: Which value of each epoch is kept; None: none is.
        others: Further fields of `EpochReport` that are kept.
    """

    def __init__(self, metric: str | None = None, others: Sequence[str] = ()) -> None:
        self.metric = metric
        self.others = tuple(others)
        self.trials: dict[str, TrialState] = {}
        """By name, in the order planned."""
        self.learned: list[Learned] = []
        """What the sampler was given from before the study."""
        self.spent = Spent()
        self.last: Event | None = None
        """The last event; None: no driver has begun yet."""
        self.phase = "planned"
        """Where the study stands when no driver runs it: "planned", "interrupted", "stopped",
        "extended" or "finished"."""
        self.waiting: Notice | None = None
        """What the workers wait for, as last said; None: all have a place, or no driver runs."""
        self.waiting_since: float | None = None
        """When that began, in seconds of Unix time."""
        self.num_changes = 0
        """Times that the result of a trial has changed."""
        self.num_drivers = 0
        """Drivers that have begun, the one that runs among them."""
        self.trained_at: float | None = None
        """When an epoch or a trial of it ended last."""
        self.earlier_s = 0.0
        """Seconds in which earlier drivers trained: from their first trial to their last event of
        one."""
        self._started_at: float | None = None
        """When the last driver's first start of a trial was recorded."""
        self._driver_at: float | None = None
        """When the last driver began."""
        self._reported: list[tuple[str, int]] = []
        """Trial and epoch of each kept value, in the order of the reports."""

    @classmethod
    def of(
        cls, events: Iterable[Event], metric: str | None = None, others: Sequence[str] = ()
    ) -> Self:
        """The state after some events.

        Raises:
            RecordError: They tell of a trial that was never planned, or are damaged.
        """
        state = cls(metric, others)
        for event in events:
            state.take(event)
        return state

    def take(self, event: Event) -> None:
        """Learn from the next event.

        Raises:
            RecordError: It tells of a trial that was never planned.
        """
        if isinstance(event, StudyBegun | Resumed):
            self.new_driver()
            self._driver_at = event.t
        if isinstance(event, TrialEvent):
            self._take(event)
        elif isinstance(event, Learned):
            self.learned.append(event)
        elif not (isinstance(event, Notice) and event.waits is None):
            self._wait(event)
        self.phase = _PHASES.get(type(event), self.phase)
        self.spent.take(event)
        self.last = event

    def new_driver(self) -> None:
        """Trials that run are left by their driver: another one begins."""
        if self._started_at is not None and self.trained_at is not None:
            self.earlier_s += max(0.0, self.trained_at - self._started_at)
        self.num_drivers += 1
        self._started_at = self.trained_at = self._driver_at = None

    def training_since(self) -> float | None:
        """When the last driver's first trial began, in seconds of Unix time; None: none has."""
        if self._started_at is None:
            return None
        own = (one.began() for one in self.trials.values() if one.driver == self.num_drivers)
        first = min((at for at in own if at is not None), default=self._started_at)
        first = min(first, self._started_at)
        return first if self._driver_at is None else max(first, self._driver_at)

    def is_training(self, trial: TrialState) -> bool:
        """Whether a trial was started by the last driver and has not ended."""
        return trial.status == "running" and trial.driver == self.num_drivers

    def _wait(self, event: Event) -> None:
        """Note that workers wait for a place, or that this has ended, perhaps with the driver."""
        if isinstance(event, Notice) and event.waits:
            self.waiting = event
            self.waiting_since = event.t if self.waiting_since is None else self.waiting_since
        else:
            self.waiting = self.waiting_since = None

    def _take(self, event: TrialEvent) -> None:
        if isinstance(event, Planned):  # planned again after a resume: it keeps what it has
            self._check_parent(event)
            self.trials.setdefault(event.trial, TrialState(event, epoch=event.begins_after))
            self.num_changes += 1
            return
        trial = self.trials.get(event.trial)
        if trial is None:
            raise RecordError(
                f"the {event.kind!r} event is of trial {event.trial!r}, which was never planned; "
                "the journal lacks a line."
            )
        match event:
            case Started():  # again, perhaps: its old result is void
                if trial.driver != self.num_drivers:
                    own = event.epoch - trial.planned.begins_after
                    trial.from_epoch = max(own, trial.trained)
                if self._started_at is None:
                    self._started_at = event.t
                trial.driver, trial.told_at = self.num_drivers, None
                trial.started, trial.ended, trial.status = event, None, "running"
                trial.reused = None
                self.num_changes += 1
            case Reused():
                trial.reused = event
            case Epoch():
                self._keep_value(trial, event)
            case Ended():
                trial.ended, trial.status = event, event.result.status
                self._note_time(trial, event.t)
                self.num_changes += 1
            case Tested():
                trial.tested = event

    def _check_parent(self, planned: Planned) -> None:
        parent = planned.parent
        if parent and not {parent.trial, parent.replaces} <= self.trials.keys():
            raise RecordError(
                f"trial {planned.trial} begins from the state of {parent.trial} in place of "
                f"{parent.replaces}, and one of them was never planned; the journal lacks a line."
            )

    def _keep_value(self, trial: TrialState, event: Epoch) -> None:
        epoch = trial.epoch = event.report.epoch
        trial.report = event.report
        self._note_time(trial, event.t)
        if trial.status == "planned":  # the line of its start is lost, or it has none
            trial.status = "running"
            trial.driver = None if trial.reused else self.num_drivers
        is_new = epoch not in trial.values and epoch not in trial.others
        if is_new and (self.others or hasattr(event.report, self.metric or "")):
            if hasattr(event.report, self.metric or ""):
                trial.values[epoch] = getattr(event.report, self.metric or "")
            if self.others:
                trial.others[epoch] = tuple(getattr(event.report, name) for name in self.others)
            self._reported.append((event.trial, epoch))

    def _note_time(self, trial: TrialState, t: float) -> None:
        trial.told_at = t
        if trial.reused is None:
            self.trained_at = t

    @property
    def is_empty(self) -> bool:
        """Whether no driver has begun yet."""
        return self.last is None

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run."""
        return isinstance(self.last, Finished)

    def counts(self) -> dict[str, int]:
        """Trials by final status."""
        ended = (trial.result for trial in self.trials.values())
        return dict(Counter(result.status for result in ended if result is not None))

    def without_score(self) -> dict[str, str]:
        """Trials whose selected state could not be scored on the test split, and why."""
        tested = ((name, trial.tested) for name, trial in self.trials.items())
        return {name: one.reason for name, one in tested if one and one.reason}

    def unfinished(self) -> dict[str, TrialState]:
        """Trials that have not ended, by name."""
        return {name: trial for name, trial in self.trials.items() if trial.ended is None}

    def ancestors(self, name: str) -> list[tuple[Planned, int]]:
        """The trials from whose states a trial has come, the first one first, each with the last
        of its epochs that belongs to the line."""
        found: list[tuple[Planned, int]] = []
        parent = self.trials[name].planned.parent
        while parent is not None:
            planned = self.trials[parent.trial].planned
            found.insert(0, (planned, parent.epoch))
            parent = planned.parent
        return found

    @property
    def num_places(self) -> int:
        """Trials as a budget counts them: those that follow on others have their places."""
        return sum(one.planned.parent is None for one in self.trials.values())

    def followed(self) -> set[str]:
        """Trials whose places others have taken."""
        parents = (one.planned.parent for one in self.trials.values())
        return {parent.replaces for parent in parents if parent}

    def reused(self) -> dict[str, Reused]:
        """Trials that were taken from earlier studies, by name."""
        return {name: one.reused for name, one in self.trials.items() if one.reused}

    def reports(self) -> Iterator[tuple[str, int]]:
        """Trial and epoch of every kept value, in the order of the reports."""
        yield from self._reported

    def outcomes(self) -> list[tuple[Planned, Mapping[str, Any] | None]]:
        """What was planned, with the outcomes that the sampler was told; None: has not ended.

        A trial that was stopped early is told as it stood then, as ASHA saw it, while its record
        gives its best epoch.
        """
        return [(trial.planned, self.outcome(name)) for name, trial in self.trials.items()]

    def outcome(self, name: str) -> Mapping[str, Any] | None:
        """What the sampler is told of a trial; None: it has not ended."""
        trial = self.trials[name]
        if trial.ended is None:
            return None
        outcome = {"n": trial.ended.n, **trial.ended.result.as_dict()}
        if trial.status != "pruned" or not trial.values:
            return outcome
        last = max(trial.values)
        return {**outcome, "num_epochs": last, self.metric or "": trial.values[last]}
