"""How many places a study may have, look by look: given up for others, taken again later.

Others have to wait for two looks before a worker ends for them, and to be gone for a while before a
place is taken again; each time that this was too early, for longer. So nothing swings.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from search.workers.shares import Shares

LOOKS = 2
"""Looks in a row at which others wait: a task that Ray is about to place shows up in one."""
CALM_S = 20.0
"""Until places are taken again, once nobody waits who should have them."""
MAX_CALM_S = 640.0


class Step(NamedTuple):
    """What follows from a look."""

    cap: int | None
    """Workers that may have places on the nodes of today, those that have one included; None: as
    many as there are."""
    give: Sequence[int]
    """Workers that end at their next epoch boundary."""
    to: str
    """Whom their places are for."""


class ShareKeeper:
    """Keeps a study to its share while others wait.

    Args:
        study: Its id.
        clock: Seconds.
    """

    def __init__(self, study: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._clock = clock
        self._cap: int | None = None
        self._num_looks = 0
        self._calm_s = CALM_S
        self._calm_since: float | None = None
        self._grown_at: float | None = None

    def step(self, shares: Shares, placed: Mapping[int, str], leaving: Sequence[str]) -> Step:
        """Look at who waits.

        Args:
            shares: Of everybody, this study too.
            placed: As of `Shares.to_give`, without those that are about to end.
            leaving: Nodes of those, one for each.
        """
        share = shares.workers[self._study]
        if shares.is_served(self._study, leaving):
            self._num_looks = 0
            if leaving:  # a place that is about to be free is for those who wait for it
                self._calm_since = None
            else:
                self._rest(share, shares.others_wait(self._study))
            return Step(self._cap, (), "")
        self._calm_since = None
        self._num_looks += 1
        if self._num_looks < LOOKS:
            return Step(self._cap, (), "")
        self._cap = share
        give, to = shares.to_give(self._study, placed, leaving)
        if give:
            self._learn()
        return Step(self._cap, give, to)

    def _rest(self, share: int, others_wait: bool) -> None:
        """Take more places after a while: first up to the share, then all that there are."""
        if self._cap is None:
            return
        now = self._clock()
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < self._calm_s:
            return
        if self._cap < share:
            self._cap = share
        elif others_wait:
            return
        else:
            self._cap = None
        self._calm_since = self._grown_at = now

    def _learn(self) -> None:
        """Wait for longer the next time, if places were taken again too early."""
        if self._grown_at is None:
            return
        is_early = self._clock() - self._grown_at < 10 * self._calm_s
        self._calm_s = min(2 * self._calm_s, MAX_CALM_S) if is_early else CALM_S
        self._grown_at = None
