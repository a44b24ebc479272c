"""Which of several rows leads over the seeds, and whether that is shown.

The decision is `spaces.verdict.decide`, as the terminal has it; beside it stand the paired
difference of the two best rows, its interval, and the smallest one that the seeds could show.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from reports.records.study import Study
from reports.statistics.paired_tests import Paired, compare_paired, detectable_effect
from reports.tables import ranking, replicates
from spaces.verdict import FIRST_SEEDS, Verdict, decide, level_of, looks


@dataclass(frozen=True, slots=True)
class Contest:
    """Rows of a study that were trained on the same seeds."""

    order: tuple[str, ...]
    """Rows with a value, the best first by the rule of `spaces.selection`."""
    values: Mapping[str, Mapping[int, float]]
    """The objective by row and seed, as measured."""
    decided: Verdict
    paired: Paired | None
    """The first row less the second; None: there is no second, or they share no seed."""
    level: float
    """What p has to be below for two rows to be told apart, after Bonferroni."""
    detectable: float | None
    """Smallest true difference of the two that these seeds show at this level, with 80 % power."""
    num_open: int = 0
    """Trials that have not ended."""

    @property
    def num_seeds(self) -> int:
        """Most seeds that a row has."""
        return max(map(len, self.values.values()), default=0)

    @property
    def is_tie(self) -> bool:
        """Whether the two best rows have the same values but for rounding."""
        return (
            self.paired is not None
            and self.paired.p is None
            and abs(self.paired.diff or 0.0) <= 1e-12
        )


def of_rows(trials: pd.DataFrame, study: Study) -> Contest:
    """The rows of an ablation's design, as of a confirmation."""
    values = row_values(trials, study)
    names = dict(zip(trials["trial"], rows_of(trials), strict=True))
    points = ranking(trials, study).points
    order = dict.fromkeys(names[one.trials[0]] for one in points)
    is_open = trials["status"].isin(OPEN)
    return _contest([*order], values, study, num_open=int(is_open.sum()))


def of_points(trials: pd.DataFrame, study: Study) -> Contest:
    """The points of a search that have a value for every seed, or, where none has, the best one.

    A point that lacks a seed is not ordered among them, but has to be clearly worse, too, for
    another one to win. What was stopped early takes no part: it lost by fewer epochs, not over
    seeds; nor does what a race of seeds has dropped.
    """
    points = ranking(trials, study).points
    whole = [one for one in points if one.is_complete] or points[:1]
    stopped = set(trials["point"].fillna(trials["trial"])[trials["status"] == "pruned"])
    lacking = [one for one in points if not one.is_complete and one.point not in stopped]
    lacking = [] if study.races_seeds else lacking
    compared = {one.point: one.seeds for one in whole}
    found: dict[str, dict[int, float | None]] = {one.point: {} for one in (*whole, *lacking)}
    for one in replicates(trials, study.objectives[0].metric):
        if one.seed not in compared.get(one.point, (one.seed,)) or one.point not in found:
            continue
        if one.value is not None or one.seed not in found[one.point]:
            found[one.point][one.seed] = one.value
    return _contest([one.point for one in whole], found, study)


OPEN = ("planned", "running")
"""States of trials that have not ended."""


def row_values(trials: pd.DataFrame, study: Study) -> dict[str, dict[int, float | None]]:
    """The objective by row and seed; None: the trial has ended without one."""
    # A trial that still runs is not a missing seed: the race waits for it.
    has_ended = ~trials["status"].isin(OPEN)
    found: dict[str, dict[int, float | None]] = {}
    every = zip(trials["cells"], replicates(trials, study.objectives[0].metric), has_ended,
                strict=True)  # fmt: skip
    for cells, one, ended in every:
        for cell in json.loads(cells):
            row = found.setdefault(cell["level"], {})
            if ended:
                row[one.seed] = one.value
    return found


def rows_of(trials: pd.DataFrame) -> list[str]:
    """The row of the design that each trial counts for first."""
    cells = (json.loads(text) for text in trials["cells"])
    return [found[0]["level"] if found else "" for found in cells]


def decided(
    values: Mapping[str, Mapping[int, float | None]], study: Study, *, races: bool
) -> Verdict:
    """Who won, in the words of the terminal, where a row of a confirmation has its short name."""
    utility = study.objectives[0].utility
    short = {name: row for row, name in study.row_names.items()}
    utilities = {
        short.get(row, row): {
            seed: None if value is None else utility(value) for seed, value in found.items()
        }
        for row, found in values.items()
    }
    found = decide(utilities, study.seeds or _seeds(values), races=races)
    winner = found.winner
    return replace(found, winner=study.row_names.get(winner, winner) if winner else None)


def _seeds(values: Mapping[str, Mapping[int, float | None]]) -> list[int]:
    return sorted({seed for found in values.values() for seed in found})


def _contest(
    order: Sequence[str],
    values: Mapping[str, Mapping[int, float | None]],
    study: Study,
    num_open: int = 0,
) -> Contest:
    known = {
        row: {seed: v for seed, v in found.items() if v is not None and math.isfinite(v)}
        for row, found in values.items()
    }
    num_looks = looks(len(study.seeds)) if study.races else 1
    level = level_of(len(values), num_looks)
    paired = compare_paired(known[order[0]], known[order[1]]) if len(order) > 1 else None
    detectable = None
    if paired and paired.detectable is not None:  # of a test at 5 %
        at_level = detectable_effect(paired.n, level) / detectable_effect(paired.n)
        detectable = paired.detectable * at_level
    return Contest(
        order=tuple(order),
        values={row: found for row, found in known.items() if found},
        decided=decided(values, study, races=study.races),
        paired=paired if paired and paired.n else None,
        level=level,
        # two seeds have an interval, but rows are told apart from three on
        detectable=detectable if paired and paired.n >= FIRST_SEEDS else None,
        num_open=num_open,
    )
