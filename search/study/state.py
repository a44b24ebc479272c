"""What the journal of earlier drivers says of a study."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.proposals.sampled import Planned
from search.study.folder import StudyDir
from spaces.sections import Objective
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.record.events import FINAL_KINDS

_BETWEEN_DRIVERS = ("study", "resumed", "extended")
"""Events before which no driver ran."""


@dataclass(slots=True)
class Spent:
    """The time that drivers have run, by the journal's clock; also of the one that runs."""

    seconds: dict[float | None, float] = field(default_factory=dict)
    """By the number of GPUs of the cluster; None: not recorded."""
    gpus: float | None = None
    since: float | None = None
    """Time of the last event; None: there was none."""

    def take(self, event: Mapping[str, Any]) -> None:
        """Count the time up to an event, if a driver ran then."""
        if "began" in event:
            self.begin(event["began"], event.get("gpus"))
        if event["kind"] not in _BETWEEN_DRIVERS:
            self.seconds = self._until(event["t"])
        self.since = event["t"]
        if event["kind"] in _BETWEEN_DRIVERS:
            self.gpus = None
        self.gpus = event.get("gpus", self.gpus)

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
class Past:
    """A study up to now."""

    planned: dict[str, Planned] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, dict[int, float | None]] = field(default_factory=dict)
    """Objective by trial and epoch, as far as it is measured every epoch."""
    reported: list[str] = field(default_factory=list)
    """The trial of each of these values, in the order of the reports."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Last recorded epoch by trial."""
    tested: set[str] = field(default_factory=set)
    spent: Spent = field(default_factory=Spent)
    results: Results = field(default_factory=lambda: Results(Objective()))
    """Its points as they stand."""
    is_finished: bool = False
    is_empty: bool = True

    def reports(self) -> Iterator[tuple[str, int, float | None]]:
        """Trial, epoch and value of every report in order; at the end those whose place is lost."""
        left = {trial: iter(values.items()) for trial, values in self.values.items()}
        for trial in self.reported:
            yield trial, *next(left[trial])
        for trial, rest in left.items():
            yield from ((trial, *report) for report in rest)

    @property
    def hours(self) -> float:
        """Wall time of earlier drivers."""
        return self.spent.hours()

    def trials(self) -> list[tuple[Planned, Mapping[str, Any] | None]]:
        """What was planned, with the outcomes that the sampler was told; None: has not ended.

        A trial that was stopped early is told as it stood then, as ASHA saw it, while its record
        gives its best epoch.
        """
        return [(planned, self._told(trial)) for trial, planned in self.planned.items()]

    def _told(self, trial: str) -> Mapping[str, Any] | None:
        outcome, values = self.outcomes.get(trial), self.values.get(trial)
        if outcome is None or outcome["status"] != "pruned" or not values:
            return outcome
        last = max(values)
        return {**outcome, "num_epochs": last, self.results.objective.metric: values[last]}

    def counts(self) -> dict[str, int]:
        """Trials by final status."""
        return dict(Counter(str(outcome["status"]) for outcome in self.outcomes.values()))


def read_past(study: StudyDir, space: Space) -> Past:
    """Read a study's journal.

    Raises:
        RecordError: It is damaged.
    """
    metric = space.objective[0].metric
    past = Past(results=Results.of(space))
    for event in study.events():
        past.is_empty = False
        kind = event["kind"]
        past.results.take(event)
        past.is_finished = kind == "finished"
        past.spent.take(event)
        if kind == "planned":
            past.planned[event["trial"]] = Planned.from_event(event)
        elif kind == "epoch":
            past.epochs[event["trial"]] = event["epoch"]
            values = past.values.setdefault(event["trial"], {})
            if metric in event and event["epoch"] not in values:
                values[event["epoch"]] = event[metric]
                past.reported.append(event["trial"])
        elif kind in FINAL_KINDS:
            past.outcomes[event["trial"]] = event
        elif kind == "tested":
            past.tested.add(event["trial"])
    return past
