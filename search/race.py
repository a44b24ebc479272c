"""Racing: one seed more only for the rows between which the decision is still open.

All rows run with the first seeds. Before every further seed, rows whose paired interval of the
difference to the leader excludes zero are out; the race ends when one row is left or the seeds are
used up. A row is dropped for good, and a row with a failed trial is dropped too.

The chance that the best row is dropped is at most 5 % for the whole race: the level is divided by
the number of rows that it is compared with and of looks (Bonferroni).

Source:
    O. Maron and A. Moore, Hoeffding races, NIPS 6 (1994); here with paired t intervals.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.sampler import LATER, Design, Later, Planned, Proposal
from spaces.space import Space

FIRST_SEEDS = 3
"""Seeds that every row gets: with fewer, an interval says next to nothing."""
ERROR = 0.05
"""Largest chance that a race drops the best row."""

Values = Mapping[str, Mapping[int, float | None]]
"""Objective by row and seed, larger is better; None: the trial gave no value."""


class Race(Design):
    """Points of an ablation whose rows compete."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._metric = space.objective[0].metric
        self._sign = 1 if space.objective[0].goal == "maximize" else -1
        self._seeds = space.seeds
        self._values: dict[str, dict[int, float | None]] = {}
        self._running: set[tuple[str, int]] = set()

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration that is still needed."""
        while self._points:
            point = self._points[0]
            row, so_far = point.cells[0].level, self._seeds[: self._seeds.index(point.seed)]
            if len(so_far) >= FIRST_SEEDS:
                if any(seed in so_far for _, seed in self._running):
                    return LATER
                left = contenders(self._values, so_far, looks(len(self._seeds)))
                if len(left) < 2:
                    self._points.clear()
                    break
                if row not in left:
                    self._points.popleft()
                    continue
            self._running.add((row, point.seed))
            return super().propose(attempt)
        return None

    def tell(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """Learn from a trial of this driver."""
        self._note(planned.cells, planned.config.seed, outcome)

    def repeat(self, digest: str, proposal: Proposal, outcome: Mapping[str, Any] | None) -> None:
        """Learn from a trial of an earlier driver; one that still runs is told in the end."""
        if outcome is not None:
            self._note(proposal.cells, proposal.config.seed, outcome)

    def _note(
        self, cells: Sequence[Mapping[str, Any]], seed: int, outcome: Mapping[str, Any]
    ) -> None:
        row = cells[0]["level"]
        self._running.discard((row, seed))
        done = outcome.get("status") in ("completed", "reused")
        value = outcome.get(self._metric) if done else None
        if value is not None:
            value = self._sign * value if math.isfinite(value) else None
        self._values.setdefault(row, {})[seed] = value


def looks(num_seeds: int) -> int:
    """How often a race of so many seeds is looked at, the end included."""
    return max(1, num_seeds - FIRST_SEEDS + 1)


def contenders(values: Values, seeds: Sequence[int], num_looks: int) -> list[str]:
    """Rows that may be the best one, the leader first.

    Args:
        values: Of all rows, also of those that are out.
        seeds: Those trained so far; a row that lacks one of them is out.
        num_looks: How often this is asked in one race.
    """
    whole: dict[str, list[float]] = {}
    for row, found in values.items():
        row_values = [value for seed in seeds if (value := found.get(seed)) is not None]
        if len(row_values) == len(seeds):
            whole[row] = row_values
    if not whole:
        return []
    level = ERROR / (max(1, len(values) - 1) * num_looks)
    ranked = sorted(whole, key=lambda row: -sum(whole[row]))
    leader = whole[ranked[0]]
    return [ranked[0]] + [row for row in ranked[1:] if paired_p(leader, whole[row]) >= level]


def paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the paired t test; 1 where it is not defined (one pair, or no difference)."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean = sum(differences) / n
    if n < 2 or mean == 0:
        return 1.0
    variance = sum((d - mean) ** 2 for d in differences) / (n - 1)
    return 1 - _student(abs(mean) / math.sqrt(variance / n), n - 1) if variance else 0.0


def _student(t: float, df: int) -> float:
    """P(|T| <= t) of Student's T.

    Source:
        Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(df))
    odd = df % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    inside = math.sin(angle) * total
    return (angle + inside) * 2 / math.pi if odd else inside
