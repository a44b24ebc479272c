"""Racing: one seed more only for the rows between which the decision is still open.

All rows run with the first seeds. Before every further seed, rows that are clearly worse than the
leader are out (`spaces.verdict`); the race ends when one row is left or the seeds are used up. A
row is dropped for good, and a row with a failed trial is dropped too: the verdict then says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from search.proposals.design import Design
from search.proposals.source import LATER, Later, Outcome, Proposal
from spaces.selection import has_completed
from spaces.space import Space
from spaces.verdict import FIRST_SEEDS, contenders, looks
from tcpa_core.record.events import Planned


class Race(Design):
    """Points of an ablation whose rows compete."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._objective = space.objective[0]
        self._seeds = space.seeds
        self._values: dict[str, dict[int, float | None]] = {}
        self._running: set[tuple[str, int]] = set()

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration that is still needed."""
        while self._points:
            point = self._points[0]
            # The design goes seed by seed: all rows with one seed before any with the next.
            row, so_far = point.cells[0].level, self._seeds[: self._seeds.index(point.seed)]
            if len(so_far) >= FIRST_SEEDS:
                # A verdict needs all rows with the same seeds, so it waits for the slowest.
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

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Learn from a trial of this driver."""
        self._note(planned.cells, planned.config.seed, outcome)

    def repeat(self, digest: str, proposal: Proposal, outcome: Outcome | None) -> None:
        """Learn from a trial of an earlier driver; one that still runs is told in the end."""
        if outcome is not None:
            self._note(proposal.cells, proposal.config.seed, outcome)

    def _note(self, cells: Sequence[Mapping[str, Any]], seed: int, outcome: Outcome) -> None:
        row = cells[0]["level"]
        self._running.discard((row, seed))
        value = outcome.get(self._objective.metric) if has_completed(outcome) else None
        value = None if value is None else self._objective.utility(value)
        self._values.setdefault(row, {})[seed] = value
