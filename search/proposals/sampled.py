"""Points sampled by Optuna, each with every seed of the space or with those a race gives it."""

import json
from collections import deque
from collections.abc import Iterator, Sequence

from search.proposals.asked import Asked, AskedPoints
from search.proposals.dashboard_copy import OptunaLog
from search.proposals.replayed import Replay
from search.proposals.samplers.base import sampler_class
from search.proposals.source import LATER, Later, Outcome, Past, Proposal
from spaces.space import Space
from tcpa_core.config import Flat
from tcpa_core.record.events import Learned, Planned

ASK_AGAIN = 8
"""Suggestions in a row that were all run before; then points are drawn at random."""


class Sampled:
    """Points suggested by Optuna; every point is run with all seeds of the space.

    Where these are raced, `search.proposals.seed_race` says which point gets a further one.

    Used by one thread at a time.

    Args:
        space: Its axes, sampler and first points.
        name: Of the Optuna study.
        log: Gets a copy of the finished points under that name.
        learned: Results from before the study.
    """

    def __init__(
        self,
        space: Space,
        name: str,
        log: OptunaLog | None = None,
        learned: Sequence[Learned] = (),
    ) -> None:
        self._space = space
        self._points = AskedPoints(space, name, log, learned)
        self._first = deque(space.complete(point) for point in space.first_points)
        self._is_grid = sampler_class(space.sampler).enumerates
        self._size = space.size()
        self._is_finite = self._size is not None
        self._rest: Iterator[Flat] | None = None
        """The grid behind what was proposed of it; None: not needed yet."""
        self._seen: set[str] = set()
        self._pending: deque[tuple[Asked, int, str]] = deque()
        """Seeds of points that were begun, each with its origin."""
        self._before: list[str | Flat] = []
        """Of the next trial, see `Planned`."""

    def propose(self, attempt: int) -> Proposal | Later | None:
        """The next configuration: another seed of the current point or of a race, or a new point.

        Args:
            attempt: Proposals before this one that had been run already; after a few of them the
                sampler is not asked any more, but a point drawn at random.

        Returns:
            None when every point of the space was proposed, LATER when the end of a trial may
            bring one of them another seed.
        """
        if not self._pending and not self._add_further():
            asked = self._ask(attempt)
            if asked is not None:
                seeds = self._space.seeds[:1] if self._points.race else self._space.seeds
                self._pending.extend(
                    (asked, seed, "replicate" if i else asked.origin)
                    for i, seed in enumerate(seeds)
                )
            elif not self._add_further(is_last=True):
                race = self._points.race
                return LATER if race and race.is_open else None
        asked, seed, origin = self._pending.popleft()
        config = self._space.config(asked.point, seed)
        return Proposal(config, origin, [], dict(asked.trial.params), asked, self._before)

    def take(self, planned: Planned, proposal: Proposal) -> None:
        """Remember which point a planned trial belongs to."""
        self._points.assign(planned, _asked(proposal))
        self._before = []

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Pass a finished trial on; a point with several seeds is told as the mean of its seeds.

        In a race it is the mean of
        those that it has got so far. Pruned trials are told as pruned with their last
        value, failures as failed; a value that is not finite counts as a failure.
        """
        self._before.append(planned.trial)
        self._points.tell(planned, outcome)

    def repeat(self, digest: str, proposal: Proposal, outcome: Outcome | None) -> None:
        """The proposal was run before: tell what is known of it instead of running it.

        Args:
            digest: Of the proposal.
            proposal: As it was made.
            outcome: Of the earlier trial; None while it still runs, then it is told in the end.
        """
        # Noted once for a point: its other seeds follow without being drawn.
        if proposal.origin != "replicate":
            note = {"digest": digest, "draw": proposal.draw, "origin": proposal.origin}
            self._before.append(note)
        self._points.share(_asked(proposal), digest, outcome)

    def replay(self, past: Past) -> None:
        """Go through the trials of earlier drivers, so that the sampler knows what it knew."""
        replay = Replay(self._space, self._points, self._begin, past)
        self._before = [*replay.run()]
        self._pending.extend((asked, seed, "replicate") for asked, seed in replay.missing())

    def close(self) -> None:
        """Finish writing the copy for optuna-dashboard."""
        self._points.close()

    def _add_further(self, *, is_last: bool = False) -> bool:
        """Whether a race of seeds gives some point another one, which is next then."""
        found = self._points.race.next(is_last=is_last) if self._points.race else None
        if found is None:
            return False
        point, seed = found
        self._pending.append((self._points.by_point[point], seed, "replicate"))
        return True

    def _ask(self, attempt: int) -> Asked | None:
        if self._first:
            return self._begin("first_point", self._space.params(self._first[0]))
        if self._points.race and len(self._seen) == self._size:
            return None  # the race goes on: no sampler is to draw again meanwhile
        # A sampler that has converged proposes the same point again and again.
        origin = "random" if attempt >= ASK_AGAIN and not self._is_grid else "sampler"
        if not self._is_finite or not (self._is_grid or origin == "random"):
            return self._begin(origin)
        # The sampler only repeats itself: what is left of the grid ends the space for sure.
        point = next(self._unseen(), None)
        return None if point is None else self._begin(origin, self._space.params(point))

    def _begin(self, origin: str, draw: Flat | None = None, is_redrawn: bool = False) -> Asked:
        """Begin the next point, as of `AskedPoints.ask`."""
        # Also in a replay, where the draw comes from the journal and not from the queue.
        if origin == "first_point" and self._first:
            self._first.popleft()
        asked = self._points.ask(origin, draw, is_redrawn=is_redrawn)
        if self._is_finite:  # elsewhere a point is hardly ever met again
            self._seen.add(_key(asked.point))
        return asked

    def _unseen(self) -> Iterator[Flat]:
        """Points of a finite space that were not proposed yet, in the order of the grid."""
        if self._rest is None:
            self._rest = self._space.points.grid()
        return (point for point in self._rest if _key(point) not in self._seen)


def _asked(proposal: Proposal) -> Asked:
    assert isinstance(proposal.asked, Asked)
    return proposal.asked


def _key(point: Flat) -> str:
    return json.dumps(point, sort_keys=True)
