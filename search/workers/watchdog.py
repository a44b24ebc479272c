"""Tells a worker that hangs from one that is slow, by its signs of life.

A sign of life is a training step, a batch evaluated, an image decoded: small against an epoch, so
that an epoch of hours is no hang, and a step that never ends is found soon.
"""

import time

from tcpa_core.record.values import Pulse

MIN_LIMIT_S = 60.0
"""Nothing shorter is called a hang."""
MAX_LIMIT_S = 3600.0
"""Longest silence where no epoch of a pack was measured yet (data, clusters), and at all."""
LIMIT_EPOCHS = 20
"""Longest silence in epochs of the pack."""
MAX_PAUSE_S = 10.0


class Watchdog:
    """Follows one worker.

    Args:
        limit_s: Longest silence; None: from the epochs that were measured.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._last = Pulse()
        self._last_look_s = time.monotonic()
        self.silent_s = 0.0
        """Since the last sign of life."""

    @property
    def usual_s(self) -> float | None:
        """Longest epoch of the pack that trains, as far as it was measured."""
        return self._last.usual_s

    @property
    def limit_s(self) -> float:
        """Longest silence that is no hang."""
        if self._limit_s is not None:
            return self._limit_s
        usual = self._last.usual_s
        if usual is None:
            return MAX_LIMIT_S
        return min(max(MIN_LIMIT_S, LIMIT_EPOCHS * usual), MAX_LIMIT_S)

    @property
    def pause_s(self) -> float:
        """Time until the next look."""
        return min(MAX_PAUSE_S, self.limit_s / 4)

    def hangs(self, pulse: Pulse | None) -> bool:
        """Take what the worker answered; None: nothing.

        Returns:
            Whether it has been silent for too long. Time in which this process stood still as well
            (a machine that sleeps) counts as one pause.
        """
        now = time.monotonic()
        passed, self._last_look_s = now - self._last_look_s, now
        if pulse is not None and (pulse.is_idle or pulse.signs != self._last.signs):
            self.silent_s = 0.0
        else:
            # More than two pauses passed only if this process stood still, too: the machine slept.
            self.silent_s += min(passed, 2 * self.pause_s)
        self._last = pulse or self._last
        return self.silent_s > self.limit_s
