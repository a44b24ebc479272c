"""The rungs of successive halving, each with the values of the trials that reached it."""

import math
from bisect import insort
from collections.abc import Sequence


def epochs_of_rungs(first: int, factor: int, epochs: int) -> list[int]:
    """Rungs below a number of epochs: each is `factor` times the one before."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return found


class Rungs:
    """Decides by what reached a rung before.

    Args:
        first: Epoch of the first rung, at least 1.
        factor: Of this many trials one goes on, at least 2; also from rung to rung.
    """

    def __init__(self, first: int, factor: int) -> None:
        self._first, self._factor = first, factor
        self._trials: dict[int, set[str]] = {}
        """Who reached each rung."""
        self._values: dict[int, list[float]] = {}
        """Theirs, rising."""

    def below(self, epochs: int) -> list[int]:
        """Rungs that come before the end of a trial of so many epochs."""
        return epochs_of_rungs(self._first, self._factor, epochs)

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """Let a value count at its rung, once for each trial; whether the trial goes on.

        An epoch that is no rung decides nothing.
        """
        if epoch not in self.below(epoch + 1):
            return True
        trials, ranked = self._trials.setdefault(epoch, set()), self._values.setdefault(epoch, [])
        if trial in trials:
            return True
        (value,) = values
        goes_on = not ranked or value >= quantile(ranked, 1 - 1 / self._factor)
        trials.add(trial)
        insort(ranked, value)
        return goes_on


def quantile(ranked: Sequence[float], share: float) -> float:
    """The quantile of rising values, linear between two, to the bit as `numpy.percentile` has it.

    Studies that are resumed decide as the version of Ray did that began them.

    Args:
        ranked: At least one.
        share: In [0, 1].
    """
    place = (len(ranked) - 1) * (share * 100 / 100)
    below = math.floor(place)
    part = place - below
    low, high = ranked[below], ranked[min(below + 1, len(ranked) - 1)]
    # The nearer one is the start, as in NumPy: of two equal values the result is that value.
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
