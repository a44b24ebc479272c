"""Contrasts of a factorial design, one value for each seed: level means, interactions of pairs.

A contrast compares runs that differ in the factors in question only, and a seed counts where it has
all of these runs. A fraction has no such runs: there a contrast is over all runs of a seed, whose
columns are orthogonal, so that other factors add the same to both sides.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from spaces.fraction import Effect, Runs, aliases, is_orthogonal, resolution

Run = tuple[str, ...]
"""A level of each factor."""
Values = Mapping[tuple[int, Run], float]
"""Value by seed and run."""


@dataclass(frozen=True)
class Factorial:
    """Runs of a full or fractional design."""

    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    """Of each factor, the baseline first."""
    runs: tuple[Run, ...]
    """As planned, replicates not counted."""

    @cached_property
    def coded(self) -> Runs:
        """Runs of two-level factors, 1 where a level is not the baseline."""
        return tuple(
            tuple(int(level != names[0]) for level, names in zip(run, self.levels, strict=True))
            for run in self.runs
        )

    @cached_property
    def is_fraction(self) -> bool:
        """Whether the design is a part of all runs that has contrasts of its own."""
        return (
            len(self.runs) < prod(map(len, self.levels))
            and all(len(names) == 2 for names in self.levels)
            and is_orthogonal(self.coded)
        )

    @cached_property
    def aliases(self) -> Mapping[Effect, tuple[Effect, ...]]:
        """Of a fraction, the aliases of main effects and pairs."""
        return aliases(self.coded) if self.is_fraction else {}

    @property
    def resolution(self) -> str:
        """Roman numeral of a fraction's resolution."""
        return resolution(self.coded)

    def level_means(self, place: int, values: Values) -> tuple[list[dict[int, float]], str]:
        """Mean of each level of a factor by seed, and what had to be left out."""
        blocks, seeds, left_out = self._complete((place,), values)
        means = [
            {s: _mean(values, s, [run for block in blocks for run in block if run[place] == level])
             for s in seeds if any(run[place] == level for block in blocks for run in block)}
            for level in self.levels[place]
        ]  # fmt: skip
        return means, left_out

    def interactions(
        self, places: tuple[int, int], values: Values
    ) -> dict[tuple[str, str], dict[int, float]]:
        """How much a level of one factor changes the effect of a level of another, by seed.

        (y11 - y01) - (y10 - y00) with 0 for the baseline, averaged over all other factors, for each
        two levels that are none.
        """
        blocks, seeds, _ = self._complete(places, values)
        first, other = (self.levels[place] for place in places)
        runs: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in (run for block in blocks for run in block):
            runs[run[places[0]], run[places[1]]].append(run)
        means = {at: {s: _mean(values, s, some) for s in seeds} for at, some in runs.items()}
        found: dict[tuple[str, str], dict[int, float]] = {}
        for pair in product(first[1:], other[1:]):
            corners = (pair, (first[0], pair[1]), (pair[0], other[0]), (first[0], other[0]))
            y11, y01, y10, y00 = (means.get(corner, {}) for corner in corners)
            shared = y11.keys() & y01.keys() & y10.keys() & y00.keys()
            found[pair] = {s: y11[s] - y01[s] - y10[s] + y00[s] for s in sorted(shared)}
        return found

    def _complete(
        self, places: tuple[int, ...], values: Values
    ) -> tuple[list[list[Run]], list[int], str]:
        """Blocks of runs to compare, and the seeds that have a value for each run of them.

        Seeds that lack a run are left out. Only where fewer than two would be left, the block that
        most seeds lack is left out instead.
        """
        blocks = self._blocks(places, values)
        seeds = sorted({seed for seed, _ in values})
        whole = [{s for s in seeds if all((s, run) in values for run in block)} for block in blocks]
        # Greedy: each turn gives up the block that costs fewest, until two seeds are whole.
        kept = list(range(len(blocks)))
        while kept:
            found = set(seeds).intersection(*(whole[i] for i in kept))
            if len(found) >= min(2, len(seeds)) or (found and len(kept) == 1):
                left_out = [f"seed {s}" for s in seeds if s not in found]
                if len(kept) < len(blocks):
                    left_out.append(
                        f"{len(blocks) - len(kept)} of {len(blocks)} combinations of the others"
                    )
                return [blocks[i] for i in kept], sorted(found), ", ".join(left_out)
            kept.remove(min(kept, key=lambda i: len(whole[i])))
        return [], [], "every seed" if seeds else ""

    def _blocks(self, places: tuple[int, ...], values: Values) -> list[list[Run]]:
        """Runs that differ in these factors only, with every level that has a value at all."""
        if self.is_fraction:
            return [list(self.runs)]
        # Levels that have a value anywhere: a study that still runs has effects of what is there.
        met = {(place, run[place]) for _, run in values for place in places}
        found: defaultdict[Run, list[Run]] = defaultdict(list)
        for run in self.runs:
            if all((place, run[place]) in met for place in places):
                others = tuple(name for k, name in enumerate(run) if k not in places)
                found[others].append(run)
        # A block that lacks a run has no contrast; levels that nobody has run yet do not count.
        size = prod(sum(at == place for at, _ in met) for place in places)
        return [block for block in found.values() if len(block) == size]


def _mean(values: Values, seed: int, runs: Sequence[Run]) -> float:
    return sum(values[seed, run] for run in runs) / len(runs)
