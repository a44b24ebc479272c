"""How often the intervals of the reports cover, and how often their tests err when nothing differs.

    python -m benchmarks.statistics

prints simulated coverage (aim: 95 +- 1.5 %), the power that `tcpa plan --power` promises (80 +- 3
%) and false-positive rates (aim: at most 5 %), each with the Monte Carlo error of the simulation
itself, which is allowed for twice. Flat (uniform) noise is far from what Student's interval
supposes and is shown for information.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from reports.statistics.expected_best import expected_best, mean_curve
from reports.statistics.factorial import Factorial
from reports.statistics.importance import fanova, ped_anova
from reports.statistics.paired_tests import (
    MEDIAN_FROM,
    bca_interval,
    compare_paired,
    holm,
    paired_p,
    summarise,
)
from reports.statistics.power import Spread, seen_by_data_sets, seen_by_seeds, spread_of
from reports.statistics.profiles import aggregates
from spaces.fraction import two_level_runs

SEEDS = (3, 5, 10, 20)
LEVELS = 6
"""Levels of a factor compared with one baseline: the family of Holm's adjustment."""
DRAWS: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "normal": lambda random, size: random.normal(0, 0.01, size),
    "uniform": lambda random, size: random.uniform(-0.02, 0.02, size),
}


def coverage(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Share of intervals that hold the true value 0, by interval, distribution and seeds."""
    for name, draw in DRAWS.items():
        for n in SEEDS:
            found = [summarise(row) for row in draw(random, (repeats, n)).tolist()]
            hits = sum(
                f.low <= 0 <= f.high for f in found if f.low is not None and f.high is not None
            )
            yield f"mean, Student, {name}, n = {n}", hits / repeats, repeats
        for n in (MEDIAN_FROM, 25, 40):
            rows = draw(random, (repeats // 2, n))
            pairs = [bca_interval(row, np.median, seed) for seed, row in enumerate(rows)]
            hits = sum(low <= 0 <= high for low, high in pairs)
            yield f"median, BCa, {name}, n = {n}", hits / len(pairs), len(pairs)
        for n in (6, 10, 19):
            rows = draw(random, (repeats // 4, n))
            ranked = [compare_paired(dict(enumerate(row)), dict.fromkeys(range(n), 0.0), "wilcoxon")
                      for row in rows]  # fmt: skip
            hits = sum(one.low <= 0 <= one.high for one in ranked
                       if one.low is not None and one.high is not None)  # fmt: skip
            yield f"difference, Wilcoxon, {name}, n = {n}", hits / len(rows), len(rows)


def bands(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Share of bands of a bench that hold the true value; few trials and few seeds are hard."""
    truth = np.maximum.accumulate(random.beta(5, 2, (200_000, 16)), axis=1).mean(axis=0)
    for n in (1, 4, 8):
        hits = 0
        for row in random.beta(5, 2, (repeats, 16)):
            _, low, high = mean_curve([expected_best(row)])[n - 1]
            hits += low <= truth[n - 1] <= high
        yield f"expected best of {n} of 16 trials", hits / repeats, repeats
    for n in SEEDS[:3]:
        for num in (1, 5):
            hits, draws = 0, random.normal(0.5, 0.01, (repeats // 8, num, n))
            for runs in draws:
                _, low, high = aggregates(list(runs))["mean"]
                hits += low <= 0.5 <= high
            yield f"bootstrap of a mean, n = {n}, {num} data sets", hits / len(draws), len(draws)


def powers(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Share of studies that see what their own pilot says can be seen."""
    for rows, seeds, n in ((2, 3, 5), (3, 5, 3), (5, 5, 12)):
        seen = 0
        for pilot in random.normal(0, 0.01, (repeats, rows, seeds)):
            found = spread_of({str(k): dict(enumerate(row)) for k, row in enumerate(pilot)})
            assert found is not None
            study = random.normal(seen_by_seeds(found, n), 0.01 * math.sqrt(2), n)
            p = paired_p(study, "paired t")
            seen += p is not None and p < 0.05
        yield f"{n} seeds, pilot of {rows} rows x {seeds} seeds", seen / repeats, repeats
    for n in (6, 19):
        unit = seen_by_data_sets(Spread(1.0, 8), n)
        assert unit is not None
        found = np.sqrt(random.chisquare(8, repeats // 4) / 8)
        p_values = [paired_p(random.normal(unit * one, 1.0, n), "wilcoxon") for one in found]
        seen = sum(p is not None and p < 0.05 for p in p_values)
        yield f"{n} data sets, pilot of 9", seen / len(found), len(found)


def false_positives(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Share of null studies in which something is called different at 5 %."""
    for n in SEEDS:
        single = family = 0
        for _ in range(repeats):
            # the noise of a seed is partly common to all levels: they share batches
            common = random.normal(0, 0.01, n)
            levels = common + random.normal(0, 0.01, (LEVELS + 1, n))
            as_seeds = [dict(enumerate(row)) for row in levels]
            p = [compare_paired(row, as_seeds[0]).p for row in as_seeds[1:]]
            single += p[0] is not None and p[0] < 0.05
            family += any(q is not None and q < 0.05 for q in holm(p))
        yield f"paired t, one comparison, n = {n}", single / repeats, repeats
        yield f"any of {LEVELS} levels after Holm, n = {n}", family / repeats, repeats
    for n in (10, 19):
        rejected = 0
        for row in random.standard_t(3, (repeats, n)):
            p_one = compare_paired(dict(enumerate(row)), dict.fromkeys(range(n), 0.0), "wilcoxon").p
            rejected += p_one is not None and p_one < 0.05
        yield f"Wilcoxon over {n} datasets", rejected / repeats, repeats
    yield from _factorial(random, repeats // 8)
    yield from _importance(random, repeats // 80)


def _factorial(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Families of a design of five factors in 16 runs in which no factor does anything."""
    runs = tuple(tuple(map(str, run)) for run in two_level_runs(5))
    design = Factorial(tuple("abcde"), (("0", "1"),) * 5, runs)
    for n in (3, 5):
        mains = pairs = 0
        for _ in range(repeats):
            values = {(s, run): 0.01 * s + random.normal(0, 0.01) for s in range(n) for run in runs}
            means = [design.level_means(place, values)[0] for place in range(5)]
            mains += _any_differs([compare_paired(high, low).p for low, high in means])
            effects = [
                design.interactions(places, values)["1", "1"]
                for places in combinations(range(5), 2)
            ]
            pairs += _any_differs([compare_paired(e, dict.fromkeys(e, 0.0)).p for e in effects])
        yield f"any of 5 two-level factors after Holm, n = {n}", mains / repeats, repeats
        yield f"any of 10 interactions after Holm, n = {n}", pairs / repeats, repeats


def _any_differs(p_values: list[float | None]) -> bool:
    return any(p is not None and p < 0.05 for p in holm(p_values))


def _importance(random: np.random.Generator, repeats: int) -> Iterator[tuple[str, float, int]]:
    """Axes called distinct that do nothing: three beside one that does, 20 points of 5 seeds."""
    found = {"fANOVA": 0, "PED-ANOVA": 0}
    for _ in range(repeats):
        x = random.random((20, 4))
        y = 0.05 * np.sin(3 * x[:, 0]) + random.normal(0, 0.01, 20)
        rows = np.repeat(x, 5, axis=0), np.repeat(y, 5) + random.normal(0, 0.01, 100)
        for name, judge in (("fANOVA", fanova), ("PED-ANOVA", ped_anova)):
            found[name] += sum(one["is_distinct"] for one in judge(*rows, [1, 2, 3]))
    for name, count in found.items():
        yield f"idle axis by {name}, 20 points of 5 seeds", count / (3 * repeats), 3 * repeats


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    print("95 % intervals that cover the true value")
    for name, share, repeats in coverage(random, args.repeats):
        error = 2 * math.sqrt(0.95 * 0.05 / repeats)
        holds = abs(share - 0.95) <= 0.015 + error if "normal" in name else None
        _show(name, share, repeats, holds)
    print("95 % bands of a bench that cover, for information")
    for name, share, repeats in bands(random, args.repeats // 4):
        _show(name, share, repeats, None)
    print("studies that see the difference that plan --power promises for 80 %")
    for name, share, repeats in powers(random, args.repeats):
        _show(name, share, repeats, abs(share - 0.8) <= 0.03)
    print("null studies called different at 5 %")
    for name, share, repeats in false_positives(random, args.repeats):
        # a rate of exactly 5 % is seen above it in half of the simulations
        _show(name, share, repeats, share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / repeats))


def _show(name: str, share: float, repeats: int, holds: bool | None) -> None:
    """Print a line; `holds` is None for noise that the intervals do not suppose."""
    error = 100 * math.sqrt(share * (1 - share) / repeats)
    verdict = "" if holds is None else "ok" if holds else "OUTSIDE"
    print(f"  {name:<42}{100 * share:7.2f} +- {error:.2f} %  {verdict}")


if __name__ == "__main__":
    main()
