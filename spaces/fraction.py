"""Fractions of two-level designs: the runs to train, and which effects they cannot tell apart.

2^k runs have k basic columns, and any further factor's column is a product of some of these. An
effect is a set of factors (one: a main effect, two: a pair's interaction). Effects whose columns
are equal but for the sign are aliases: the runs show their sum only. A fraction of resolution R has
no aliases whose orders add up to less than R.

Source:
    Box and Hunter, "The 2^(k-p) fractional factorial designs", Technometrics 3 (1961).
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import combinations, product
from math import comb

Runs = tuple[tuple[int, ...], ...]
"""Runs x factors, 0 for low and 1 for high."""
Effect = tuple[int, ...]
"""Places of its factors."""

NAMED = 5
"""Aliases in a line; a fraction of many factors has dozens."""
_KEPT = 8
"""Designs that the search goes on with, all of different word lengths."""
_NUMERALS = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")


def fewest_runs(num_factors: int) -> int:
    """Runs of the smallest fraction of resolution IV or better."""
    runs = 2
    # Resolution IV needs at least twice as many runs as factors (the foldover bound).
    while runs < 2 * num_factors and runs < 2**num_factors:
        runs *= 2
    return runs


def two_level_runs(
    num_factors: int, num_runs: int | None = None, *, first_products: bool = False
) -> Runs:
    """The fraction of least aberration; its first run has all factors low.

    That is the one with the fewest aliases between effects of low order: first of all the highest
    resolution. With 2^(factors) runs it is the full factorial.

    Args:
        num_runs: A power of two above the number of factors; None: `fewest_runs`.
        first_products: Take the first products of an odd number of basic columns instead, as
            versions did that knew no other fractions. It differs for 5, 9 and 10 factors.
    """
    num_runs = num_runs or fewest_runs(num_factors)
    columns = _columns(num_factors, num_runs.bit_length() - 1, first_products)
    return tuple(tuple(_parity(run & column) for column in columns) for run in _basic(num_runs))


def resolution(runs: Runs) -> str:
    """Roman numeral of a regular fraction's resolution; "" of a full factorial."""
    lengths = _word_lengths([sum(run) for run in runs], len(runs[0]))
    shortest = next((length for length, count in enumerate(lengths, 1) if count), 0)
    return _NUMERALS[shortest] if shortest < len(_NUMERALS) else str(shortest)


def is_orthogonal(runs: Runs) -> bool:
    """Whether each factor is high in half of the runs, and each two of them in a quarter."""
    counts = [sum(run) for run in zip(*runs, strict=True)]
    pairs = [sum(a & b for a, b in zip(x, y, strict=True))
             for x, y in combinations(zip(*runs, strict=True), 2)]  # fmt: skip
    return all(2 * n == len(runs) for n in counts) and all(4 * n == len(runs) for n in pairs)


def aliases(runs: Runs) -> dict[Effect, tuple[Effect, ...]]:
    """Aliases of lowest order of every main effect and every pair; () where there are none."""
    num_factors = len(runs[0])
    effects = [e for order in (1, 2) for e in combinations(range(num_factors), order)]
    found: dict[Effect, tuple[Effect, ...]] = dict.fromkeys(effects, ())
    if len(runs) == 2**num_factors:
        return found
    own = {effect: contrast(runs, effect) for effect in effects}
    # Aliases of lowest order only: higher ones are rarely large, and there are very many.
    for order in range(1, num_factors + 1):
        open_ = [effect for effect in effects if not found[effect]]
        if not open_:
            break
        same: dict[tuple[int, ...], list[Effect]] = {}
        for effect in combinations(range(num_factors), order):
            same.setdefault(_unsigned(contrast(runs, effect)), []).append(effect)
        for effect in open_:
            alike = same.get(_unsigned(own[effect]), [])
            found[effect] = tuple(other for other in alike if other != effect)
    return found


def contrast(runs: Runs, effect: Effect) -> tuple[int, ...]:
    """Sign of each run in an effect: the product of its factors' -1 and +1."""
    return tuple(1 - 2 * ((sum(run[k] for k in effect) + len(effect)) % 2) for run in runs)


def short_names(paths: Sequence[str]) -> list[str]:
    """Last part of each dotted path, where no other has the same."""
    last = [path.rpartition(".")[2] for path in paths]
    return [name if last.count(name) == 1 else path for name, path in zip(last, paths, strict=True)]


def alias_lines(paths: Sequence[str], runs: Runs) -> list[str]:
    """Each set of aliases once, as 'lr × dropout = batch_size × weight_decay'."""
    names = short_names(paths)
    found = {
        tuple(sorted({effect, *others}, key=lambda one: (len(one), one)))
        for effect, others in aliases(runs).items()
        if others
    }
    return [
        alike_text(alike, names, " = ")
        for alike in sorted(found, key=lambda one: (len(one[0]), one))
    ]


def alike_text(effects: Sequence[Effect], names: Sequence[str], join: str = ", ") -> str:
    """Effects by name; of many the first ones."""
    shown = [" × ".join(names[k] for k in effect) for effect in effects[:NAMED]]
    more = len(effects) - len(shown)
    return join.join([*shown, f"{more} more"] if more else shown)


def _basic(num_runs: int) -> list[int]:
    """Runs as numbers whose bits are the basic factors, the first one lowest."""
    return [sum(bit << k for k, bit in enumerate(bits))
            for bits in product((0, 1), repeat=num_runs.bit_length() - 1)]  # fmt: skip


@lru_cache(maxsize=64)
def _columns(num_factors: int, num_basic: int, first_products: bool) -> tuple[int, ...]:
    """Columns as sets of basic ones (bits): the basic ones, then the best products.

    Built one factor after the other, each time from the best few designs of one factor less.
    """

    def by_order(column: int) -> tuple[bool, int, list[int]]:
        # products of an odd number, which keep main effects free of pairs, come first
        letters = [-(column >> k & 1) for k in range(num_basic)]
        return column.bit_count() % 2 == 0, column.bit_count(), letters

    runs = _basic(2**num_basic)
    products = sorted((c for c in range(2**num_basic) if c.bit_count() > 1), key=by_order)
    basic = tuple(1 << k for k in range(min(num_basic, num_factors)))
    first = (*basic, *products[: num_factors - len(basic)])
    if first_products:
        return first
    # There are too many sets of products to try them all: a beam goes on with the best few, one for
    # each distribution of word lengths.
    best: list[tuple[tuple[int, ...], list[int]]] = [((), [run.bit_count() for run in runs])]
    for size in range(num_basic + 1, num_factors + 1):
        found: dict[tuple[int, ...], tuple[tuple[int, ...], list[int]]] = {}
        for chosen, highs in best:
            for column in (c for c in products if c not in chosen):
                more = [n + _parity(run & column) for n, run in zip(highs, runs, strict=True)]
                found.setdefault(_word_lengths(more, size), ((*chosen, column), more))
        best = [found[lengths] for lengths in sorted(found)[:_KEPT]]
    # So that it is never worse than the first products, which are the best of many sizes.
    designs = [first, (*basic, *best[0][0])]  # of equal ones the first
    return min(designs, key=lambda columns: _word_lengths(_highs(columns, runs), num_factors))


def _highs(columns: Sequence[int], runs: Sequence[int]) -> list[int]:
    """Number of high factors of each run."""
    return [sum(_parity(run & column) for column in columns) for run in runs]


def _parity(bits: int) -> int:
    return bits.bit_count() % 2


def _word_lengths(highs: Sequence[int], num_factors: int) -> tuple[int, ...]:
    """Number of words of length 1, 2, ... in the defining relation of a regular fraction.

    Args:
        highs: Of each run the number of high factors.

    Source:
        MacWilliams' identities: Xu and Wu, Ann. Stat. 29 (2001), Theorem 4.
    """
    counts = Counter(highs)
    return tuple(
        sum(count * _krawtchouk(length, n, num_factors) for n, count in counts.items())
        // len(highs)
        for length in range(1, num_factors + 1)
    )


@cache
def _krawtchouk(length: int, highs: int, num_factors: int) -> int:
    return sum(
        (-1) ** i * comb(highs, i) * comb(num_factors - highs, length - i)
        for i in range(length + 1)
    )


def _unsigned(signs: tuple[int, ...]) -> tuple[int, ...]:
    return signs if signs[0] > 0 else tuple(-sign for sign in signs)
