"""Which row of a confirmation won, if the seeds can tell.

Rows are compared by paired t tests over the seeds that both have. In a race rows are looked at
before every further seed and drop out once they are clearly worse than the leader; elsewhere all
rows are compared once, at the end. The chance that the best row is called worse is at most 5 % for
the whole study: the level is divided by the number of rows that a row is compared with, and of
looks (Bonferroni).

Source:
    O. Maron and A. Moore, Hoeffding races, NIPS 6 (1994); here with paired t intervals.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST_SEEDS = 3
"""With fewer seeds an interval says next to nothing; every row of a race gets so many."""
ERROR = 0.05
"""Largest chance that the best row is called worse."""
NO_SPREAD = 1e-12
"""Relative spread below which differences are equal but for rounding."""
RESAMPLES = 1000

Values = Mapping[str, Mapping[int, float | None]]
"""Objective by row and seed, larger is better; None: the trial gave no value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a confirmation ended."""

    winner: str | None
    """None: not decided."""
    text: str
    """The verdict in words: who won, or what is missing for one."""

    def __str__(self) -> str:
        return self.text


def looks(num_seeds: int) -> int:
    """How often a race of so many seeds is looked at, the end included."""
    return max(1, num_seeds - FIRST_SEEDS + 1)


def level_of(num_rows: int, num_looks: int) -> float:
    """The level of each test, so that the chance of calling the best row worse is `ERROR`."""
    return ERROR / (max(1, num_rows - 1) * num_looks)


def contenders(values: Values, seeds: Sequence[int], num_looks: int) -> list[str]:
    """Rows that may be the best one, the leader first.

    Args:
        values: Of all rows, also of those that are out.
        seeds: Those trained so far; a row that lacks one of them is out.
        num_looks: How often this is asked in one race.
    """
    complete = _without_gaps(values, seeds)
    if not complete:
        return []
    level = level_of(len(values), num_looks)
    ranked = sorted(complete, key=lambda row: -sum(complete[row]))
    leader = complete[ranked[0]]
    return [ranked[0]] + [row for row in ranked[1:] if paired_p(leader, complete[row]) >= level]


def decide(values: Values, seeds: Sequence[int], *, races: bool) -> Verdict:
    """Who won when all trials have ended.

    A row that lacks a seed is out only where it is clearly worse over the seeds that it has: what
    failed or diverged says nothing of how good it is.

    Args:
        values: Of every row that took part.
        seeds: Those that a row gets at most, in their order.
        races: Whether rows were dropped on the way.
    """
    run = [seed for seed in seeds if any(_known(found, [seed]) for found in values.values())]
    num_looks = looks(len(seeds)) if races else 1
    left = contenders(values, run, num_looks)
    if not run or not left:
        lacking = [_lack(row, found, run or seeds) for row, found in values.items()]
        reasons = "; ".join(lacking)
        return Verdict(None, f"not decided: no row has a value for every seed ({reasons}).")
    leader, num = left[0], f"{len(run)} seed{'s' * (len(run) > 1)}"
    best = f"{leader} has the best mean"
    if len(run) < FIRST_SEEDS:
        return Verdict(
            None, f"not decided: {num} cannot tell rows apart, {FIRST_SEEDS} may; {best}."
        )
    complete = _without_gaps(values, run)
    unbeaten = [
        row
        for row in values
        if row not in complete and not _is_beaten(row, leader, values, run, num_looks)
    ]
    if unbeaten:
        lacking = [_lack(row, values[row], run, values[leader], leader) for row in unbeaten]
        advice = "mend what failed, rename this study's folder and confirm again"
        if all(_waits(values[row], run) for row in unbeaten):
            advice = "let it run on"
        return Verdict(
            None,
            f"not decided: {'; '.join(lacking)}. Of the rows with every seed, {best}; {advice}.",
        )
    if len(left) > 1:
        return Verdict(
            None,
            f"not decided after {num}: {', '.join(left)} cannot be told apart; {best}.",
        )
    return Verdict(
        leader,
        f"{leader} wins: with {num}, every other row is significantly worse. "
        f"Its mean is itself the best of {len(values)} and still optimistic, by about "
        f"{optimism(list(complete.values())):.2g} (bootstrap over the seeds).",
    )


def optimism(rows: Sequence[Sequence[float]]) -> float:
    """By how much the best mean of rows is expected to exceed its own row's true mean.

    Seeds are drawn again, the same for all rows: how much better the best row of the drawn seeds
    looks there than over all seeds.

    Args:
        rows: Values by seed, of every row the same seeds; at least two.

    Source:
        R. J. and R. Tibshirani, A bias correction for the minimum error rate in cross-validation,
        Ann. Appl. Stat. 3 (2009), section 2, with bootstrap samples in place of folds.
    """
    num = len(rows[0])
    draw, excess = random.Random(0), 0.0
    for _ in range(RESAMPLES):
        # The same seeds for every row: what makes a seed easy is shared by all.
        drawn = draw.choices(range(num), k=num)
        means = [math.fsum(row[i] for i in drawn) / num for row in rows]
        best = max(range(len(rows)), key=means.__getitem__)
        excess += means[best] - math.fsum(rows[best]) / num
    return max(0.0, excess / RESAMPLES) * math.sqrt(num / (num - 1))


def paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the paired t test; 1 where it is not defined.

    That is with one pair, and with differences that are all equal: they show no spread that the
    mean could be compared with.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean = sum(differences) / n
    if n < 2 or mean == 0:
        return 1.0
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    # Rounding differs in the last bits, which would make any difference significant.
    if deviation <= NO_SPREAD * max(map(abs, first)):
        return 1.0
    return 1 - _student(abs(mean) / (deviation / math.sqrt(n)), n - 1)


def _student(t: float, df: int) -> float:
    """P(|T| <= t) of Student's T.

    Source:
        Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(df))
    odd = df % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    inside = math.sin(angle) * total
    return (angle + inside) * 2 / math.pi if odd else inside


def _known(found: Mapping[int, float | None], seeds: Sequence[int]) -> dict[int, float]:
    """The values that are numbers."""
    of = ((seed, found.get(seed)) for seed in seeds)
    return {seed: value for seed, value in of if value is not None and math.isfinite(value)}


def _without_gaps(values: Values, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Values of the rows that have one for every seed."""
    known = {row: _known(found, seeds) for row, found in values.items()}
    return {row: [*one.values()] for row, one in known.items() if one and len(one) == len(seeds)}


def _shared(
    first: Mapping[int, float | None], second: Mapping[int, float | None], seeds: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Values of two rows over the seeds that both have."""
    one, other = _known(first, seeds), _known(second, seeds)
    both = [seed for seed in one if seed in other]
    return [one[seed] for seed in both], [other[seed] for seed in both]


def _is_beaten(row: str, leader: str, values: Values, run: Sequence[int], races: int) -> bool:
    """Whether a row without every seed is clearly worse all the same.

    Either at the look of the race that dropped it, or than the leader over what both have.

    Args:
        races: Looks of the race; 1: there was none.
    """
    for num in range(FIRST_SEEDS, len(run)) if races > 1 else ():
        seeds = run[:num]
        if _without_gaps({row: values[row]}, seeds) and row not in contenders(values, seeds, races):
            return True
    best, own = _shared(values[leader], values[row], run)
    level = level_of(len(values), races)
    return len(own) >= FIRST_SEEDS and sum(best) > sum(own) and paired_p(best, own) < level


def _waits(found: Mapping[int, float | None], run: Sequence[int]) -> bool:
    """Whether a row has only not come to its last seeds yet."""
    known = _known(found, run)
    return list(known) == list(run[: len(known)]) and not (found.keys() & set(run)) - known.keys()


def _lack(
    row: str,
    found: Mapping[int, float | None],
    run: Sequence[int],
    leading: Mapping[int, float | None] | None = None,
    leader: str = "",
) -> str:
    """What a row lacks, and how it stands to the leader without it."""
    missing = [seed for seed in run if seed not in _known(found, run)]
    missing = [seed for seed in missing if seed in found] or missing  # failed rather than not run
    text = f"{row} has no value for seed{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
    best, own = _shared(leading or {}, found, run)
    if not own:
        return text
    difference = (math.fsum(own) - math.fsum(best)) / len(own)
    how = "better than" if difference > 0 else "not clearly worse than"
    return f"{text} and is {how} {leader} over the {len(own)} that both have ({difference:+.4f})"
