"""What the journal of earlier drivers says of a study."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.sampler import Planned
from search.study import StudyDir
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.record import FINAL_KINDS

_BETWEEN_DRIVERS = ("study", "resumed", "extended")
"""Events before which no driver ran."""


@dataclass(slots=True)
class Past:
    """A study up to now."""

    results: Results
    """Its points as they stand."""
    planned: dict[str, Planned] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """Objective by trial and epoch, as far as it is measured every epoch."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Last recorded epoch by trial."""
    tested: set[str] = field(default_factory=set)
    hours: float = 0.0
    """Wall time of earlier drivers."""
    is_finished: bool = False
    is_empty: bool = True

    def counts(self) -> dict[str, int]:
        """Trials by final status."""
        return dict(Counter(str(outcome["status"]) for outcome in self.outcomes.values()))


def read_past(study: StudyDir, space: Space) -> Past:
    """Read a study's journal.

    Raises:
        RecordError: It is damaged.
    """
    past = Past(Results.of(space))
    metric = space.objective[0].metric
    before: Mapping[str, Any] = {}
    for event in study.events():
        past.is_empty = False
        kind = event["kind"]
        past.results.take(event)
        past.is_finished = kind == "finished"
        if before and kind not in _BETWEEN_DRIVERS:
            # A clock that is set back takes nothing away.
            past.hours += max(0.0, event["t"] - before["t"]) / 3600
        before = event
        if kind == "planned":
            past.planned[event["trial"]] = Planned.from_event(event)
        elif kind == "epoch":
            past.epochs[event["trial"]] = event["epoch"]
            if metric in event:
                past.values.setdefault(event["trial"], {})[event["epoch"]] = event[metric]
        elif kind in FINAL_KINDS:
            past.outcomes[event["trial"]] = event
        elif kind == "tested":
            past.tested.add(event["trial"])
    return past
