"""Counts as shares of other counts: all are drawn as often, and each can be asked for."""

from collections import Counter

import optuna
import pytest

from spaces.axes import FractionAxis

RANGES = [
    (0.1, 1.0),
    (0.25, 0.75),
    (0.3, 0.3),
    (0.05, 0.95),
    (1.0, 1.0),
    (0.01, 0.2),
    (1 / 3, 2 / 3),
]


class Given:
    """A trial whose float is a given place in its range, from 0 to 1."""

    def __init__(self, place: float) -> None:
        self.place = place

    def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
        return low + self.place * (high - low)


@pytest.mark.parametrize("ends", RANGES)
@pytest.mark.parametrize("pool", [*range(1, 41), 64, 99, 100, 197, 1000])
def test_every_count_has_an_equal_part_of_the_range(pool: int, ends: tuple[float, float]) -> None:
    axis = FractionAxis(fraction_of="n.n", range=ends).at(pool)
    counts = list(axis.values() or ())
    assert counts[0] == max(1, round(ends[0] * pool)) and counts[-1] == max(
        1, round(ends[1] * pool)
    )
    places = 40 * len(counts)
    drawn = Counter(axis.suggest(Given((i + 0.5) / places), "k.k") for i in range(places))
    assert drawn == dict.fromkeys(counts, 40)
    assert axis.suggest(Given(0.0), "k.k") == counts[0]
    assert axis.suggest(Given(1.0), "k.k") == counts[-1]


@pytest.mark.parametrize("ends", RANGES)
@pytest.mark.parametrize("pool", [1, 2, 3, 7, 10, 20, 33, 99, 100, 1000])
def test_every_count_can_be_asked_for(pool: int, ends: tuple[float, float]) -> None:
    axis = FractionAxis(fraction_of="n.n", range=ends).at(pool)
    for count in axis.values() or ():
        name, share = axis.param("k.k", count)
        assert ends[0] <= share <= ends[1]
        assert axis.suggest(optuna.trial.FixedTrial({name: share}), "k.k") == count
