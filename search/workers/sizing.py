"""How many trials a worker should hold at once, by the speed of packs on its device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcpa_core.config import Flat

DEFAULT_SLOTS = 4
"""Trials per worker where nothing was measured."""
SLOTS_WITHOUT_GAIN = 2
"""Trials per worker where packs gain nothing: they take turns."""
MIN_GAIN = 0.05
"""Gain in speed that makes twice as many trials at once worth it."""

Speeds = Sequence[Mapping[int, float]]
"""Images per second by number of members, for each kind of pack; {} for a kind that trains
alone."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """A measurement that each model of device is given once, on its first worker."""

    trials: Sequence[Flat]
    """The largest of each kind of pack."""
    share: float
    """Part of its machine's memory that a worker may count on."""
    most: int
    """Trials of which the study's length makes use at once."""

    def slots(self, speeds: Speeds) -> int:
        """Trials that a worker should hold; [] where the measurement failed."""
        return min(self.most, worth_slots(speeds) if speeds else DEFAULT_SLOTS)


def worth_slots(speeds: Speeds) -> int:
    """Trials that a worker should hold, so that its packs are as large as pays.

    Every trial more at the same time is one that the sampler and the scheduler decide on without
    its neighbours' results. Packs of different kinds take turns: to have n members in each, a
    worker needs n trials of each kind. Where packs gain nothing, two trials suffice: one trains
    while the scheduler decides on the other.
    """
    packs = [by_size for by_size in speeds if by_size]

    def seconds(members: int) -> float:
        """Time for one image of every kind."""
        return sum(1 / by_size[max(n for n in by_size if n <= members)] for by_size in packs)

    members = 1
    # Powers of two are what the probe measures. A kind that gains nothing takes its turns, too, so
    # that the others gain less.
    while packs and seconds(2 * members) * (1 + MIN_GAIN) < seconds(members):
        members *= 2
    return members * len(speeds) if members > 1 else SLOTS_WITHOUT_GAIN
