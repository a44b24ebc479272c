"""A race of a search's points: further seeds only for those that may be the best.

The rule is the intensification of ROAR and SMAC, with seeds in the place of instances:

1. A new point, the challenger, gets the first seed. The first point with a value is the incumbent.
2. Whenever a challenger begins, the incumbent gets one further seed, up to the last one.
3. A challenger is compared with the incumbent by the mean over the seeds for which both have a
   value. While it is not worse it gets the next seed that the incumbent has; once it is worse, it
   never gets another one. One whose trial failed or was stopped early is worse.
4. A challenger that has every seed of the incumbent, and a better mean over them, is the incumbent
   from then on. The old one is out.
5. When the space has no new points any more, the incumbent gets its seeds all the same.

Two things differ from the paper: seeds are given in their order, so that comparisons are paired,
and a challenger gets one more at a time where the paper doubles their number. Places that are free
meanwhile go to new points, as in the asynchronous racing of SMAC3: the incumbent gets its seed when
none of its trials runs. A seed of the incumbent that failed has no value, and counts for nobody.

Source:
    Hutter, Hoos, Leyton-Brown (2011), "Sequential Model-Based Optimization for General Algorithm
    Configuration", LION 5, Procedure 2 (Intensify); Lindauer et al. (2022), "SMAC3", JMLR 23(54).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Racer:
    """A point, the seeds that it was given, and what they brought."""

    point: str
    given: list[int] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    """Utility of each seed that has completed: larger is better."""
    num_open: int = 0


class SeedRace:
    """Which point of a search gets which further seed.

    What it says follows from the order of `take` and `tell` alone.

    Args:
        seeds: In the order in which they are given.
        utility: Turns a value of the objective so that larger is better.
    """

    def __init__(self, seeds: Sequence[int], utility: Callable[[float], float]) -> None:
        self._seeds = seeds
        self._utility = utility
        self._incumbent: _Racer | None = None
        self._challengers: dict[str, _Racer] = {}
        """Those still in the race, by point, in the order begun."""
        self._is_owed = False
        """A challenger has begun since the incumbent got its last seed."""

    @property
    def incumbent(self) -> str | None:
        """The best point so far; None: no trial has a value."""
        return self._incumbent.point if self._incumbent else None

    @property
    def is_open(self) -> bool:
        """Whether a trial runs that may bring a further seed for some point."""
        racers = [*self._challengers.values(), *([self._incumbent] if self._incumbent else [])]
        return any(racer.num_open for racer in racers)

    def next(self, *, is_last: bool = False) -> tuple[str, int] | None:
        """The point whose further seed comes before any new point, and the seed; None: there is
        none.

        Args:
            is_last: No new point will begin.
        """
        best = self._incumbent
        if best is None:
            return None
        has_left = len(best.given) < len(self._seeds) and not best.num_open
        if has_left and self._is_owed:
            return best.point, self._seeds[len(best.given)]
        for racer in self._challengers.values():
            if not racer.num_open and len(racer.given) < len(best.given):
                return racer.point, self._seeds[len(racer.given)]
        if has_left and is_last and not self.is_open:
            return best.point, self._seeds[len(best.given)]
        return None

    def take(self, point: str, seed: int) -> None:
        """A trial of a point is run."""
        best = self._incumbent
        if best is not None and point == best.point:
            racer, self._is_owed = best, False
        elif point in self._challengers:
            racer = self._challengers[point]
        else:
            racer = self._challengers[point] = _Racer(point)
            self._is_owed = best is not None
        racer.given.append(seed)
        racer.num_open += 1

    def tell(self, point: str, seed: int, value: float | None) -> None:
        """A trial has ended.

        Args:
            value: Of the objective; None: it has failed, or was stopped early.
        """
        best = self._incumbent
        racer = best if best and point == best.point else self._challengers[point]
        racer.num_open -= 1
        if value is not None:
            racer.values[seed] = self._utility(value)
        elif racer is not best:
            del self._challengers[point]
        if best is None and value is not None:
            self._incumbent = self._challengers.pop(point)
        self._compare()

    def _compare(self) -> None:
        """Drop challengers that are worse, and let one that is better take the first place."""
        for racer in [one for one in self._challengers.values() if not one.num_open]:
            best = self._incumbent
            if best is None:
                return
            shared = racer.values.keys() & best.values.keys()
            # `fsum`: seeds end in any order, and their sum must be the same to the bit.
            mine, other = (math.fsum(one.values[s] for s in shared) for one in (racer, best))
            if mine < other:
                del self._challengers[racer.point]
            elif mine > other and len(racer.given) >= len(best.given) and not best.num_open:
                self._incumbent = self._challengers.pop(racer.point)
                self._compare()  # those before it were compared with the old one
                return
