"""The one rule for the selected point, and that there is no second one."""

import ast
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from spaces.sections import Objective
from spaces.selection import Ranking, Replicate, Results, rank
from tcpa_core.record.events import Event, StudyBegun
from tcpa_core.record.state import StudyState
from tests.journals import event as made

ROOT = Path(__file__).parents[2]
UP, DOWN = Objective(metric="val_accuracy"), Objective(metric="val_loss")
NAN, INF = math.nan, math.inf
Value = float | None


def ranked(
    points: Mapping[str, Sequence[Value]], objective: Objective = UP, seeds: Sequence[int] = ()
) -> Ranking:
    """The ranking of points by their values for seeds 0, 1, ...; None: failed or stopped."""
    replicates = [
        Replicate(f"{point}{seed}", point, seed, value)
        for point, values in points.items()
        for seed, value in enumerate(values)
    ]
    return rank(replicates, objective, seeds)


def first(ranking: Ranking) -> tuple[str, float, int]:
    """Point, value and number of seeds of what is selected."""
    best = ranking.selected
    assert best is not None
    return best.point, round(best.value, 6), len(best.seeds)


GOOD, POOR = [0.90, 0.91, 0.92], [0.80, 0.81, 0.80]


@pytest.mark.parametrize("rest", [None, NAN, INF, -INF])
def test_a_point_does_not_win_by_seeds_that_failed_were_stopped_or_diverged(rest: Value) -> None:
    ranking = ranked({"a": GOOD, "b": [0.95, rest, rest], "c": POOR})
    assert first(ranking) == ("a", 0.91, 3)
    assert [one.point for one in ranking.points] == ["a", "c", "b"]
    assert ranking.points[-1].missing == (1, 2)
    assert ranking.note.startswith("1 of 3 points with a value lack it for some of the 3 seeds")


def test_the_same_where_less_is_better() -> None:
    assert first(ranked({"a": [0.3, 0.31], "b": [0.2, 0.21], "c": [0.9] * 2}, DOWN))[0] == "b"
    assert first(ranked({"a": [0.3, 0.31], "b": [NAN, 0.21], "c": [0.9] * 2}, DOWN))[0] == "a"
    ranking = ranked({"a": [0.3], "b": [-INF], "c": [0.9]}, DOWN)
    assert [one.point for one in ranking.points] == ["a", "c"]


def test_seeds_that_were_never_planned_are_missing_too() -> None:
    ranking = ranked({"a": [0.95], "b": [0.90, 0.91, 0.92]}, seeds=(0, 1, 2))
    assert first(ranking) == ("b", 0.91, 3)
    assert not ranking.points[1].is_complete


def test_without_a_complete_point_those_with_most_seeds_are_compared_by_what_they_share() -> None:
    points = {"a": [0.90, 0.10, None], "b": [0.80, None, 0.99], "c": [0.99, None, None]}
    ranking = ranked(points)
    assert first(ranking) == ("a", 0.90, 1), "seed 0 is what a and b share"
    assert ranking.points[0].text() == "0.9000 over 1 of 3 seeds (trial a0)"
    assert [one.point for one in ranking.points] == ["a", "b", "c"]
    assert ranking.note == (
        "No point has a value for all 3 seeds; the selected one lacks 2 and was compared by seed 0."
    )
    apart = ranked({"a": [0.9, None], "b": [None, 0.95]})
    assert first(apart) == ("b", 0.95, 1), "they share no seed: each by its own"


def test_of_equal_means_the_point_planned_first_is_selected() -> None:
    assert first(ranked({"b": [0.1, 0.9], "a": [0.5, 0.5], "c": [0.9, 0.1]}))[0] == "b"


def test_nothing_is_selected_before_a_trial_has_a_value() -> None:
    assert ranked({}) == ranked({"a": [None, NAN]}) == Ranking()


def test_of_two_trials_of_a_seed_the_one_with_a_value_counts() -> None:
    twice = [Replicate("0", "a", 0), Replicate("1", "a", 0, 0.5), Replicate("2", "a", 0, 0.7)]
    best = rank(twice, UP).selected
    assert best is not None and (best.trials, best.value) == (("1",), 0.5)


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_any_order_of_arrival_gives_the_same_ranking(objective: Objective) -> None:
    draw = random.Random(0)
    for _ in range(200):
        planned = [
            Replicate(f"{point}-{seed}", str(point), seed,
                      draw.choice([None, NAN, draw.random(), draw.random()]))
            for point in range(draw.randint(1, 6)) for seed in range(draw.randint(1, 4))
        ]  # fmt: skip
        ranking = rank(planned, objective)
        again = rank(draw.sample(planned, len(planned)), objective)
        assert {one.point: one.value for one in again.points} == {
            one.point: one.value for one in ranking.points
        }
        if again.selected and ranking.selected:
            assert again.selected.value == ranking.selected.value
        lacking = [len(one.missing) for one in ranking.points]
        assert lacking == sorted(lacking), "no point comes before one that lacks fewer seeds"
        for one, following in zip(ranking.points, ranking.points[1:], strict=False):
            if len(one.missing) == len(following.missing):
                assert not objective.better(following.value, one.value)


def event(kind: str, trial: str, **fields: Any) -> Event:
    return made({"kind": kind, "trial": trial, **fields})


def test_results_follow_the_journal() -> None:
    state = StudyState()
    results = Results(state, UP)
    state.take(StudyBegun(name="s"))
    for trial, point in (("0", "a"), ("1", "b"), ("2", "c")):
        state.take(event("planned", trial, point=point, params={"seed": 0}))
    assert results.ranking() == Ranking()
    state.take(event("completed", "0", status="completed", val_accuracy=0.5))
    state.take(event("pruned", "1", status="pruned", val_accuracy=0.9))
    assert first(results.ranking()) == ("a", 0.5, 1)
    state.take(event("completed", "2", status="completed", val_accuracy=0.6))
    assert first(results.ranking()) == ("c", 0.6, 1)
    state.take(event("started", "2"))
    assert first(results.ranking()) == ("a", 0.5, 1), "trained again: its old result is void"
    assert list(results.best_of(str.upper)) == ["A"]


def test_a_goal_is_compared_in_one_place() -> None:
    """`Objective` alone knows what "maximize" means."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if path != ROOT / "spaces/sections.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and any(
            isinstance(side, ast.Constant) and side.value in ("maximize", "minimize")
            for side in (node.left, *node.comparators)
        )
    ]
    assert not found, found


CHOOSES = {"max", "min", "sorted", "sort", "idxmax", "idxmin", "argmax", "argmin", "argsort",
           "nlargest", "nsmallest", "sort_values", "cummax", "cummin", "rankdata",
           "lexsort"}  # fmt: skip
GOALS = {"sign", "maximize", "better", "goal", "utility"}
OTHERWISE = {
    "reports/statistics/across_data_sets.py:rank_rows": "ranks of all levels on a data set",
    "reports/statistics/importance.py:_judge": "what a forest explains",
    "reports/plots/curves.py:_lines": "the groups that a figure has room for",
    "reports/plots/curves.py:sentence": "what a figure shows of curves",
    "reports/plots/history.py:prepare": "the best so far of a figure",
    "reports/plots/marginals.py:sentence": "where a curve is highest",
    "reports/plots/parallel.py:sentence": "what the best tenth has in common",
    "reports/plots/pareto.py:sentence": "the ends of a front",
    "reports/plots/parallel.py:prepare": "lines drawn last lie on top",
    "reports/statistics/fronts.py:on_front": "a front of two measures",
    "reports/statistics/expected_best.py:expected_best": "order statistics of all values",
    "reports/statistics/expected_best.py:leaders": "which of several curves is the highest",
    "reports/page/best.py:_methods": "the order of rows",
    "reports/page/best.py:_best_of": "of a method without a completed trial, those stopped early",
    "reports/page/data_set_tables.py:column_places": "bold and underlined cells",
    "reports/verdicts/of_search.py:_unbeaten": "which further setting a sentence names",
    "search/proposals/asked.py:_forget": "points that the sampler goes on learning from",
}
"""Functions that choose by a goal, but no point of a study."""


def sources() -> list[Path]:
    return [path for name in ("spaces", "search", "reports", "tcpa_core")
            for path in sorted((ROOT / name).rglob("*.py"))]  # fmt: skip


def chooses_by_goal(node: ast.AST) -> bool:
    """Whether a function both orders values and knows which way is better."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    names |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return bool(names & CHOOSES) and bool(names & GOALS)


def test_no_other_function_chooses_by_the_objective() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and chooses_by_goal(node)
    }
    assert found - OTHERWISE.keys() == {"spaces/selection.py:_compared"}


def test_a_second_rule_would_be_found() -> None:
    second = "def pick(means, o):\n    return means.idxmax() if o.maximize else means.idxmin()\n"
    assert chooses_by_goal(ast.parse(second).body[0])
    second = "def pick(found, o):\n    return max(found, key=lambda p: o.sign * found[p])\n"
    assert chooses_by_goal(ast.parse(second).body[0])
