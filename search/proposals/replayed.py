"""What a sampler knew when the last driver ended, rebuilt from the trials of the journal."""

from collections.abc import Callable, Sequence

import optuna

from search.proposals.asked import Asked, AskedPoints
from search.proposals.samplers.base import sampler_class
from search.proposals.source import Outcome, Past
from spaces.space import Space
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import RecordError
from tcpa_core.record.events import Planned

Begin = Callable[[str, Flat, bool], Asked]
"""Begins a point: its origin, its draw, and whether the sampler draws all the same."""


class Replay:
    """One pass through the trials of earlier drivers.

    Asking and telling are repeated in their order, because some samplers keep on a trial what was
    known when it was drawn.

    Args:
        space: Of the study.
        points: Fresh.
        begin: Begins a point as it is begun in a search.
        past: In the order planned.
    """

    def __init__(self, space: Space, points: AskedPoints, begin: Begin, past: Past) -> None:
        self._space = space
        self._sampler = sampler_class(space.sampler)
        self._points = points
        self._begin_point = begin
        self._past = past
        self._untold = {p.trial: (p, outcome) for p, outcome in past if outcome is not None}
        self._live = {planned.point for planned, outcome in past if outcome is None}
        self._by_digest = {planned.digest: planned for planned, _ in past}
        self._of_point: dict[str, list[tuple[Planned, Outcome | None]]] = {}
        for planned, outcome in past:
            self._of_point.setdefault(planned.point, []).append((planned, outcome))
        self._asked: dict[str, tuple[Asked, list[int]]] = {}
        """By point, with the seeds that were not planned yet."""

    def run(self) -> list[str]:
        """Repeat all steps.

        Returns:
            Trials that ended after the last one was planned, in the order in which they are told.
        """
        for planned, _ in self._past:
            for step in self._steps(planned):
                if isinstance(step, str):
                    self._tell(step)
                else:
                    self._repeat(step)
            if planned.point not in self._asked:
                draw = _as_drawn(self._space, planned.config, planned.draw)
                asked = self._begin(planned.origin, draw, planned.point)
                self._asked[planned.point] = asked, list(self._space.seeds)
            asked, seeds = self._asked[planned.point]
            # What is left of the seeds was not planned before the driver ended.
            seeds.remove(planned.config.seed)
            self._points.assign(planned, asked)
        # In the order of their ends; the next trial is drawn, and recorded, after them.
        rest = sorted(self._untold, key=lambda name: self._untold[name][1].get("n", 0))
        for name in rest:
            self._tell(name)
        return rest

    def missing(self) -> list[tuple[Asked, int]]:
        """Points with seeds that were not planned yet, and these seeds; a race gives its own."""
        if self._points.race:
            return []
        return [(asked, seed) for asked, seeds in self._asked.values() for seed in seeds]

    def _steps(self, planned: Planned) -> Sequence[str | Flat]:
        """What was met before a trial; where that is not recorded, all that has ended is told."""
        if planned.before is not None:
            return planned.before
        return [name for name in self._points.by_trial if name in self._untold]

    def _tell(self, name: str) -> None:
        if name in self._untold:  # else told by a driver whose record of its end is lost
            self._points.tell(*self._untold.pop(name))

    def _begin(self, origin: str, draw: Flat, point: str) -> Asked:
        # What a sampler wrote on a trial is not in the journal: where it still matters, the sampler
        # draws again and writes it again, and the recorded draw is what counts.
        marks, grid = self._sampler.leaves_marks, self._sampler.enumerates
        is_read = marks or (not grid and point in self._live)
        return self._begin_point(origin, draw, is_read and origin not in ("first_point", "random"))

    def _repeat(self, step: Flat) -> None:
        """Ask for a point that was run before, and let it share what is known of that."""
        first = self._by_digest.get(step["digest"])
        if first is None:
            raise RecordError(
                f"a point that is recorded as a repeat of digest {step['digest']!r} repeats no "
                "trial of the journal; the journal was written by another version."
            )
        draw = _as_drawn(self._space, first.config, step["draw"])
        asked = self._begin(step["origin"], draw, first.point)
        for planned, outcome in self._of_point[first.point]:
            is_told = planned.trial not in self._untold
            self._points.share(asked, planned.digest, outcome if is_told else None)


def _as_drawn(space: Space, config: TrialConfig, draw: Flat) -> Flat:
    """What Optuna drew for a trial; a draw that another version read otherwise is replaced."""
    point = space.point_of(config)
    is_read_so = space.suggest(optuna.trial.FixedTrial(draw)) == point
    return draw if is_read_so else space.params(point)
