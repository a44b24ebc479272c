"""Which point of a study is selected: the one rule of all that test, confirm, report or show it.

1. A replicate counts when its trial has completed and its objective is a finite number. What has
   failed, was stopped early, diverged or has not ended is a seed without a value.
2. A point with a value for every seed comes before one that lacks some: the seeds that failed or
   were stopped are rarely its best ones. Points that lack seeds follow by how many they have.
3. Points with equally many are compared by the mean over the seeds that all of them share; where
   they share none, each by its own.
4. Of equal means, the point that was planned first is better.

Of several objectives the first one decides.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from spaces.sections import Objective
from spaces.space import Space
from tcpa_core.record.state import StudyState

SHOWN = 5
"""Trials that a line names."""


@dataclass(frozen=True, slots=True)
class Replicate:
    """One planned trial of a point."""

    trial: str
    point: str
    seed: int
    value: float | None = None
    """The objective; None: not completed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A point and what is known of it."""

    point: str
    value: float
    """Mean of the objective over `seeds`."""
    seeds: tuple[int, ...]
    """Those behind the value."""
    trials: tuple[str, ...]
    """The trial of each of these seeds."""
    missing: tuple[int, ...]
    """Seeds without a value."""
    num_seeds: int
    """Seeds that a point is to have: besides these and the missing ones, those not compared."""

    @property
    def is_complete(self) -> bool:
        """Whether every seed has a value."""
        return not self.missing

    def text(self, settings: str = "") -> str:
        """Value and trials, as in "0.9100 over 2 of 3 seeds (trials 00003, 00004)".

        Args:
            settings: Put behind the trials.
        """
        number = len(self.seeds)
        of = f" of {self.num_seeds}" if self.missing else ""
        over = f" over {number}{of} seeds" if number > 1 or of else ""
        names = ", ".join(self.trials[:SHOWN]) + ", ..." * (number > SHOWN)
        more = f": {settings}" if settings else ""
        return f"{self.value:.4f}{over} (trial{'s' * (number > 1)} {names}{more})"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Points with at least one value, the best first."""

    points: tuple[Standing, ...] = ()
    note: str = ""
    """Which points the comparison passed over and why; "": none."""

    @property
    def selected(self) -> Standing | None:
        """The selected point; None: no trial has a value."""
        return self.points[0] if self.points else None


def rank(
    replicates: Iterable[Replicate], objective: Objective, seeds: Collection[int] = ()
) -> Ranking:
    """Rank the points of a study.

    Args:
        replicates: Every planned trial, in the order planned.
        objective: The leading one.
        seeds: Those that every point is to have. Those planned for any point count as well.
    """
    planned: dict[str, dict[int, Replicate]] = {}
    needed = dict.fromkeys(seeds)
    for one in replicates:
        needed.setdefault(one.seed)
        known = planned.setdefault(one.point, {})
        # Planned again under another name, a replicate counts once, with the value that it has.
        if one.seed not in known or not _counts(known[one.seed]):
            known[one.seed] = one
    values = {
        point: {seed: found[seed] for seed in needed if seed in found and _counts(found[seed])}
        for point, found in planned.items()
    }
    by_number = sorted(filter(values.get, values), key=lambda p: -len(values[p]))
    ranked: list[Standing] = []
    # Within a group as many seeds each, though not always the same ones.
    for _, group in groupby(by_number, key=lambda p: len(values[p])):
        ranked += _compared({point: values[point] for point in group}, objective, list(needed))
    return Ranking(tuple(ranked), _note(ranked, len(needed)))


def _counts(replicate: Replicate) -> bool:
    return replicate.value is not None and math.isfinite(replicate.value)


def _compared(
    values: Mapping[str, Mapping[int, Replicate]], objective: Objective, needed: Sequence[int]
) -> list[Standing]:
    """Points with equally many values, the best first."""
    shared = set.intersection(*map(set, values.values()))
    standings = []
    for point, found in values.items():
        # Of the seeds that all share, so that no point gains by a lucky one of its own.
        seeds = tuple(seed for seed in found if seed in shared or not shared)
        used = [found[seed].value or 0.0 for seed in seeds]
        standings.append(
            Standing(
                point=point,
                value=math.fsum(used) / len(used),
                seeds=seeds,
                trials=tuple(found[seed].trial for seed in seeds),
                missing=tuple(seed for seed in needed if seed not in found),
                num_seeds=len(needed),
            )
        )
    # Sorting is stable: of equal means the point that was planned first stays first.
    return sorted(standings, key=lambda one: objective.utility(one.value), reverse=True)


def _note(ranked: Sequence[Standing], num_seeds: int) -> str:
    behind = [one for one in ranked if not one.is_complete]
    if not behind:
        return ""
    if len(behind) < len(ranked):
        return (
            f"{len(behind)} of {len(ranked)} points with a value lack it for some of the "
            f"{num_seeds} seeds (failed, stopped early, not finite or not run yet) and rank behind "
            "those that have all."
        )
    first = behind[0]
    seeds = f"seed{'s' * (len(first.seeds) > 1)} {', '.join(map(str, first.seeds))}"
    return (
        f"No point has a value for all {num_seeds} seeds; the selected one lacks "
        f"{', '.join(map(str, first.missing))} and was compared by {seeds}."
    )


def has_completed(outcome: Mapping[str, Any]) -> bool:
    """Whether a trial's outcome gives a value that counts."""
    return outcome.get("status") == "completed"


class Results:
    """Where the points of a study stand, as its state has it at any time.

    Args:
        state: May learn of further events.
        objective: The leading one.
        seeds: Those that every point is to have.
    """

    def __init__(
        self, state: StudyState, objective: Objective, seeds: Collection[int] = ()
    ) -> None:
        self.state = state
        self.objective = objective
        self._seeds = seeds
        self._ranked: tuple[int, Ranking] | None = None

    @classmethod
    def of(cls, space: Space, state: StudyState) -> Self:
        """Results of a study of this space.

        In a race the points that are left have the most seeds; how many that are, it decides.
        """
        races = space.races_seeds or (space.ablation is not None and space.ablation.races)
        return cls(state, space.objective[0], () if races else space.seeds)

    def replicates(self) -> list[Replicate]:
        """Every planned trial, in the order planned."""
        metric = self.objective.metric
        return [
            Replicate(name, one.planned.point or name, one.planned.seed, one.value(metric))
            for name, one in self.state.trials.items()
        ]

    def ranking(self) -> Ranking:
        """The points as they stand now."""
        if self._ranked is None or self._ranked[0] != self.state.num_changes:
            ranking = rank(self.replicates(), self.objective, self._seeds)
            self._ranked = self.state.num_changes, ranking
        return self._ranked[1]

    def best_of(self, group: Callable[[str], str]) -> dict[str, Standing]:
        """The selected point of each group of points, the best group first.

        Args:
            group: Names the group of a point.
        """
        groups: dict[str, list[Replicate]] = {}
        replicates = self.replicates()
        for one in replicates:
            groups.setdefault(group(one.point), []).append(one)
        found = [rank(part, self.objective, self._seeds).selected for part in groups.values()]
        best = {one.point: one for one in found if one}
        between = [one for one in replicates if one.point in best]
        ranked = rank(between, self.objective, self._seeds).points
        return {group(one.point): best[one.point] for one in ranked}
