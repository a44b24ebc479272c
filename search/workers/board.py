"""Where the studies of a cluster tell each other what they hold and want.

It lies in the memory of the cluster's head, each study's line under a key of its own: it needs no
process, belongs to no node that could be lost, and two studies cannot make it twice. A head that
starts anew without it has all lines again after the next look.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from search.ray_internals import keep_in_head, kept_by_head
from search.workers.shares import Claim

STALE_S = 60.0
"""A study whose line has not changed for so long is gone; its driver did not come to say so."""


class Board:
    """What a study tells the others, and what they tell.

    Args:
        clock: Seconds; clocks of different machines are never compared.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_told = 0
        self._has_left = False
        self._lock = threading.Lock()
        """Nothing is told after the end by a thread that was about to."""
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Of each study its line, and when it was first seen so."""

    def tell(self, claim: Claim) -> list[Claim]:
        """Tell what a study holds and wants; what the others do.

        Raises:
            Exception: As of `search.ray_internals.cluster_view`.
        """
        self._num_told += 1  # so that each line is another one
        line = json.dumps({**claim.as_dict(), "times": self._num_told}).encode()
        with self._lock:
            if not self._has_left:
                keep_in_head(claim.study, line)
        lines = {name: one for name, one in kept_by_head().items() if name != claim.study}
        now = self._clock()
        self._seen = {
            name: (one, now if self._seen.get(name, (b"",))[0] != one else self._seen[name][1])
            for name, one in lines.items()
        }
        claims = []
        for name, (one, since) in self._seen.items():
            if now - since > STALE_S:
                keep_in_head(name, None)
                continue
            with suppress(ValueError, TypeError, KeyError):  # of another version
                claims.append(Claim.of(json.loads(one)))
        return claims

    def leave(self, study: str) -> None:
        """Tell nothing any more.

        Raises:
            Exception: As of `search.ray_internals.cluster_view`.
        """
        with self._lock:
            self._has_left = True
            keep_in_head(study, None)
