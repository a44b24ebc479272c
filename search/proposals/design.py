"""The enumerated points of an ablation."""

from collections import deque

from search.proposals.source import Later, Outcome, Past, Proposal
from spaces.space import Space
from tcpa_core.record.events import Planned


class Design:
    """Enumerated points of an ablation, in order."""

    def __init__(self, space: Space) -> None:
        self._points = deque(space.design())
        self._space = space

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration; None when the design is complete."""
        if not self._points:
            return None
        point = self._points.popleft()
        cells = [cell.model_dump() for cell in point.cells]
        return Proposal(self._space.config(point.point, point.seed), "design", cells, {})

    def take(self, planned: Planned, proposal: Proposal) -> None:
        """Nothing to remember."""

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """A design does not learn."""

    def repeat(self, digest: str, proposal: Proposal, outcome: Outcome | None) -> None:
        """A point that was run by an earlier driver: nothing to do."""

    def replay(self, past: Past) -> None:
        """Trials of an earlier driver are known by their digests."""

    def close(self) -> None:
        """Nothing to release."""
