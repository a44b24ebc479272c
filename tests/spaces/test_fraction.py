"""Fractions of two-level designs: the best runs of a size, and what they cannot tell apart."""

from itertools import combinations, product
from math import prod
from typing import Any

import pytest

from spaces.fraction import Runs, alias_lines, aliases, is_orthogonal, resolution, two_level_runs
from spaces.load import space_of, stored_space
from spaces.space import Space
from tcpa_core.errors import ConfigError

# Factors, runs, resolution, and words of length 3, 4, 5 of the designs of least aberration.
# Source: Chen, Sun and Wu, Int. Stat. Rev. 61 (1993), Tables 2 to 4.
TABLE = [
    (3, 4, "III", (1, 0, 0)),
    (4, 8, "IV", (0, 1, 0)),
    (5, 8, "III", (2, 1, 0)),
    (5, 16, "V", (0, 0, 1)),
    (6, 8, "III", (4, 3, 0)),
    (6, 16, "IV", (0, 3, 0)),
    (6, 32, "VI", (0, 0, 0)),
    (7, 8, "III", (7, 7, 0)),
    (7, 16, "IV", (0, 7, 0)),
    (7, 32, "IV", (0, 1, 2)),
    (7, 64, "VII", (0, 0, 0)),
    (8, 16, "IV", (0, 14, 0)),
    (8, 32, "IV", (0, 3, 4)),
    (8, 64, "V", (0, 0, 2)),
    (9, 16, "III", (4, 14, 8)),
    (9, 32, "IV", (0, 6, 8)),
    (10, 32, "IV", (0, 10, 16)),
    (11, 32, "IV", (0, 25, 0)),
    (15, 16, "III", (35, 105, 168)),
]


def words(runs: Runs, length: int) -> int:
    """Sets of factors whose product is the same in all runs."""
    signs = [[2 * bit - 1 for bit in column] for column in zip(*runs, strict=True)]
    chosen = combinations(signs, length)
    return sum(abs(sum(map(prod, zip(*one, strict=True)))) == len(runs) for one in chosen)


@pytest.mark.parametrize(("factors", "num_runs", "roman", "lengths"), TABLE)
def test_fractions_are_those_of_least_aberration(
    factors: int, num_runs: int, roman: str, lengths: tuple[int, ...]
) -> None:
    runs = two_level_runs(factors, num_runs)
    assert len(set(runs)) == num_runs and runs[0] == (0,) * factors
    assert is_orthogonal(runs) and resolution(runs) == roman
    assert tuple(words(runs, length) for length in (3, 4, 5)) == lengths


@pytest.mark.parametrize(("factors", "basic"), [(5, 3), (5, 4), (6, 4), (7, 4), (6, 5), (7, 5)])
def test_no_other_generators_are_better(factors: int, basic: int) -> None:
    """All choices of generators, tried one by one."""
    best = tuple(words(two_level_runs(factors, 2**basic), n) for n in range(3, factors + 1))
    bits = list(product((0, 1), repeat=basic))
    products = [w for w in bits if sum(w) > 1]
    units = [tuple(int(k == j) for k in range(basic)) for j in range(basic)]
    for added in combinations(products, factors - basic):
        # a word is a set of columns whose sum is even everywhere
        columns = [*units, *added]
        found = tuple(
            sum(
                all(sum(column) % 2 == 0 for column in zip(*chosen, strict=True))
                for chosen in combinations(columns, n)
            )
            for n in range(3, factors + 1)
        )
        assert best <= found, added


def test_five_factors_in_sixteen_runs_have_the_generator_abcd() -> None:
    for *basic, last in two_level_runs(5):
        assert last == sum(basic) % 2
    assert alias_lines(["a.lr", "a.wd", "b.x", "c.x", "d"], two_level_runs(5))[:1] == [
        "lr = wd × b.x × c.x × d"
    ]


@pytest.mark.parametrize(("factors", "num_runs"), [(4, 8), (5, 8), (5, 16), (7, 16), (6, 32)])
def test_aliases_are_the_effects_with_the_same_contrast(factors: int, num_runs: int) -> None:
    runs = two_level_runs(factors, num_runs)

    def column(effect: tuple[int, ...]) -> list[int]:
        return [prod(2 * run[k] - 1 for k in effect) for run in runs]

    for effect, others in aliases(runs).items():
        for order in range(1, factors + 1):
            same = {
                other
                for other in combinations(range(factors), order)
                if other != effect
                and abs(sum(a * b for a, b in zip(column(effect), column(other), strict=True)))
                == num_runs
            }
            if same:
                break
        assert set(others) == same
    whole = tuple(product((0, 1), repeat=3))
    assert not any(aliases(whole).values()) and resolution(whole) == ""
    assert not is_orthogonal(whole[:6]), "as a design that still runs"


def fraction(**ablation: Any) -> Space:
    names = ("optim.weight_decay", "train.label_smoothing", "train.dropout", "train.drop_path")
    factors: dict[str, list[Any]] = {"optim.lr": [0.001, 0.01]}
    factors |= {name: [0.0, 0.1] for name in names}
    spec = {"design": "fractional_factorial", "factors": factors, "seeds": 1,
            "baseline": {path: levels[0] for path, levels in factors.items()}}  # fmt: skip
    base = {"methods": ["linear"]}
    return space_of({"name": "f", "base": base, "ablation": {**spec, **ablation}})


def test_a_file_may_say_how_many_runs() -> None:
    assert (len(fraction().design()), len(fraction(runs=8).design())) == (16, 8)
    assert len(fraction(runs=32).design()) == 32, "the full factorial"
    again = space_of(fraction(runs=8).as_dict())
    assert again.design() == fraction(runs=8).design()
    assert fraction().as_dict()["ablation"]["runs"] == 16, "stored, so that it stays what it was"


def test_a_study_that_did_not_record_its_runs_goes_on_with_its_own() -> None:
    """Then five factors in 16 runs had E = ABC; points of an interrupted study stay the same."""
    document = fraction().as_dict()
    assert stored_space(document, "study x").design() == fraction().design()
    del document["ablation"]["runs"]
    older = stored_space(document, "study x")
    for point in older.design():
        *basic, last = (value != 0.0 for path, value in point.point.items() if path != "optim.lr")
        first = point.point["optim.lr"] != 0.001
        assert last == (first + basic[0] + basic[1]) % 2
    assert len(older.design()) == older.size() == 16
    assert older.as_dict() == document
    assert older.ablation is not None and "resolution IV" in older.ablation.fraction()[0]


@pytest.mark.parametrize("runs", [4, 12, 64, True, "8"])
def test_sizes_that_are_none(runs: Any) -> None:
    with pytest.raises(ConfigError, match="runs of 5 factors must be one of 8, 16, 32, got"):
        fraction(runs=runs)


def test_only_a_fraction_has_a_size() -> None:
    with pytest.raises(ConfigError, match="is for design fractional_factorial, not full_fact"):
        fraction(design="full_factorial", runs=16)
