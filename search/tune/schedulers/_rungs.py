"""The rungs of successive halving, each with the values of the trials that reached it."""

import math
from bisect import insort
from collections.abc import Sequence

Values = tuple[float, ...]
"""Of a trial's objectives, each turned so that larger is better."""


def epochs_of_rungs(first: int, factor: int, epochs: int) -> list[int]:
    """Rungs below a number of epochs: each is `factor` times the one before."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return found


class Rungs:
    """Decides by what reached a rung before.

    With one objective a trial goes on if its value is not below the quantile 1 - 1 / factor of
    those that reached the rung before it, as in Ray Tune. With several it goes on if at most one in
    `factor` of them are ahead of it: in an earlier front of non-dominated values, or in the same
    front and less crowded (Deb et al., IEEE Trans. Evol. Comput. 2002, of which Schmucker et al.,
    arXiv 2106.12639, 2021, make a rule of promotion).

    Args:
        first: Epoch of the first rung, at least 1.
        factor: Of this many trials one goes on, at least 2; also from rung to rung.
    """

    def __init__(self, first: int, factor: int) -> None:
        self._first, self._factor = first, factor
        self._trials: dict[int, set[str]] = {}
        """Who reached each rung."""
        self._values: dict[int, list[float]] = {}
        """Theirs, rising; of one objective."""
        self._fronts: dict[int, list[list[Values]]] = {}
        """Theirs, front by front; of several objectives."""

    def below(self, epochs: int) -> list[int]:
        """Rungs that come before the end of a trial of so many epochs."""
        return epochs_of_rungs(self._first, self._factor, epochs)

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """Let a trial count at its rung, once; whether it goes on.

        An epoch that is no rung decides nothing.
        """
        if epoch not in self.below(epoch + 1):
            return True
        trials = self._trials.setdefault(epoch, set())
        if trial in trials:
            return True
        trials.add(trial)
        if len(values) > 1:
            fronts = self._fronts.setdefault(epoch, [])
            others = len(trials) - 1
            return num_ahead(fronts, tuple(values)) <= max(0, others - 1) / self._factor
        ranked = self._values.setdefault(epoch, [])
        goes_on = not ranked or values[0] >= quantile(ranked, 1 - 1 / self._factor)
        insort(ranked, values[0])
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
    # From the nearer one, as in NumPy.
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def num_ahead(fronts: list[list[Values]], new: Values) -> int:
    """Put values into their front; how many others are ahead of them.

    Only what the new ones dominate moves, each to the next front (Li et al., IEEE Trans. Cybern.
    2017), so that thousands of trials cost little.

    Args:
        fronts: Each dominated by something in the one before, its values rising; changed in place.
        new: Any number of objectives, larger is better.
    """
    level = 0
    while level < len(fronts) and any(_dominates(other, new) for other in fronts[level]):
        level += 1
    place, moved = level, [new]
    while moved:
        here = fronts[place] if place < len(fronts) else []
        below = [one for one in here if any(_dominates(other, one) for other in moved)]
        stay = sorted([*moved, *(one for one in here if one not in below)])
        fronts[place : place + 1] = [stay]
        place, moved = place + 1, below
    spacing = crowding(fronts[level])
    own = spacing[fronts[level].index(new)]
    return sum(map(len, fronts[:level])) + sum(distance > own for distance in spacing)


def _dominates(one: Values, other: Values) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def crowding(front: Sequence[Values]) -> list[float]:
    """Crowding distance of each member of a front: how far its neighbours are from each other, as a
    share of the range, summed over the objectives; infinite at the ends.
    """
    found = [0.0] * len(front)
    for axis in range(len(front[0])):
        order = sorted(range(len(front)), key=lambda n: front[n][axis])
        low, high = front[order[0]][axis], front[order[-1]][axis]
        for place, n in enumerate(order):
            if place in (0, len(order) - 1):
                found[n] = math.inf
            elif high > low:
                before, after = front[order[place - 1]], front[order[place + 1]]
                found[n] += (after[axis] - before[axis]) / (high - low)
    return found
