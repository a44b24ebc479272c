"""Who won a confirmation: only who the seeds say has won."""

import random

import pytest
from scipy import stats

from spaces.verdict import FIRST_SEEDS, contenders, decide, looks, optimism, paired_p

CLEAR = {"a": {0: 0.95, 1: 0.96, 2: 0.94, 3: 0.95, 4: 0.95},
         "b": {0: 0.90, 1: 0.91, 2: 0.90, 3: 0.9, 4: 0.91}}  # fmt: skip


def without(row: str, *seeds: int) -> dict[str, dict[int, float | None]]:
    """The clear case with failed trials."""
    return {name: {s: None if name == row and s in seeds else v for s, v in found.items()}
            for name, found in CLEAR.items()}  # fmt: skip


def test_a_clear_winner_and_what_is_left_of_its_optimism() -> None:
    verdict = decide(CLEAR, range(5), races=True)
    assert verdict.winner == "a"
    assert "a wins: with 5 seeds, every other row is significantly worse" in verdict.text
    assert "Its mean is itself the best of 2 and still optimistic, by about " in verdict.text


@pytest.mark.parametrize("seeds", [(2,), (0, 1), (0, 1, 2, 3), (0, 1, 2, 3, 4)])
def test_no_row_wins_after_a_failed_seed_of_a_better_one(seeds: tuple[int, ...]) -> None:
    verdict = decide(without("a", *seeds), range(5), races=True)
    assert verdict.winner is None
    lost = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    assert f"not decided: a has no value for {lost}" in verdict.text
    assert ("and is better than b over the" in verdict.text) == (len(seeds) < 5)
    assert "Of the rows with every seed, b has the best mean" in verdict.text
    left_out = {row: {s: v for s, v in found.items() if v is not None}
                for row, found in without("a", *seeds).items()}  # fmt: skip
    assert decide(left_out, range(5), races=True).winner is None


def test_a_failed_seed_of_a_row_that_is_clearly_worse_changes_nothing() -> None:
    assert decide(without("b", 4), range(5), races=True).winner == "a"
    assert decide(without("b", 2, 3, 4), range(5), races=True).winner is None, "two seeds left"
    nan = {**CLEAR, "b": {**CLEAR["b"], 4: float("nan")}}
    assert decide(nan, range(5), races=False).winner == "a"


def test_a_row_that_the_race_has_dropped_is_out() -> None:
    draw = random.Random(0)
    two = {row: {s: draw.gauss(0.9, 0.01) for s in range(6)} for row in ("a", "b")}
    dropped = {s: draw.gauss(0.5, 0.01) for s in range(FIRST_SEEDS)}
    verdict = decide({**two, "c": dropped}, range(6), races=True)
    assert "cannot be told apart" in verdict.text and " c " not in verdict.text
    near = {s: two["a"][s] - 0.001 * (s + 1) for s in range(FIRST_SEEDS)}
    assert "c has no value for seeds 3, 4, 5" in decide(
        {**two, "c": near}, range(6), races=True
    ).text  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_differences_decide_nothing(sign: int) -> None:
    equal = {"a": {0: 0.91, 1: 0.90, 2: 0.93}, "b": {0: 0.90, 1: 0.89, 2: 0.92}}
    signed = {row: {s: sign * v for s, v in found.items()} for row, found in equal.items()}
    verdict = decide(signed, range(3), races=True)
    assert verdict.winner is None
    assert verdict.text.startswith("not decided after 3 seeds: ")


@pytest.mark.parametrize("races", [True, False])
def test_two_seeds_decide_nothing(races: bool) -> None:
    two = {"a": {0: 0.99, 1: 0.98}, "b": {0: 0.10, 1: 0.12}}
    verdict = decide(two, range(2), races=races)
    assert verdict.winner is None
    assert verdict.text == (
        "not decided: 2 seeds cannot tell rows apart, 3 may; a has the best mean."
    )


def test_rows_without_a_value_are_named() -> None:
    verdict = decide({"a": {}, "b": {0: None}}, range(3), races=True)
    assert verdict.winner is None
    assert verdict.text.startswith("not decided: no row has a value for every seed (a has no value")


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 21])
def test_the_paired_test_agrees_with_scipy(n: int) -> None:
    draw = random.Random(n)
    first = [draw.gauss(0.5, 0.1) for _ in range(n)]
    for shift in (0.0, 0.05, 0.3):
        second = [draw.gauss(0.5 - shift, 0.1) for _ in range(n)]
        assert paired_p(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_a_difference_without_spread_has_no_p() -> None:
    assert paired_p([0.5, 0.6], [0.5, 0.6]) == 1.0
    assert paired_p([0.5, 0.75, 0.25], [0.25, 0.5, 0.0]) == 1.0
    assert paired_p([0.91, 0.90, 0.93], [0.90, 0.89, 0.92]) == 1.0, "equal but for rounding"
    assert paired_p([0.5], [0.1]) == 1.0


@pytest.mark.parametrize("num_rows", [2, 4])
def test_a_wrong_verdict_is_rare(num_rows: int) -> None:
    """At most 5 % of races between equal rows have a winner or drop a given row."""
    draw, dropped, won, races = random.Random(2), 0, 0, 300
    rows = "abcd"[:num_rows]
    for _ in range(races):
        values = {row: {s: draw.gauss(0, 1) for s in range(8)} for row in rows}
        dropped += any(
            "a" not in contenders(values, range(n), looks(8)) for n in range(FIRST_SEEDS, 9)
        )
        won += decide(values, range(8), races=False).winner is not None
    assert dropped / races <= 0.05
    assert won / races <= 0.05


@pytest.mark.parametrize("num_rows", [2, 5])
def test_the_optimism_of_the_best_of_equal_rows_is_seen(num_rows: int) -> None:
    """Equal rows: the mean of the best one exceeds its true mean, and the estimate says so."""
    draw, excess, told, studies = random.Random(3), 0.0, 0.0, 60
    for _ in range(studies):
        rows = [[draw.gauss(0, 1) for _ in range(5)] for _ in range(num_rows)]
        excess += max(sum(row) / 5 for row in rows) / studies
        told += optimism(rows) / studies
    assert 0.3 * excess < told < 1.5 * excess
    apart = [[10.0 * i + draw.gauss(0, 1) for _ in range(5)] for i in range(num_rows)]
    assert optimism(apart) < 0.1
