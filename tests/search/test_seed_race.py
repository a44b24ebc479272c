"""Seeds raced in a search: who gets a further one, what the sampler reads, who is selected."""

import random
from math import fsum
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from reports.records.study import Study
from search.proposals.make_source import most_trials
from search.proposals.planner import Planner
from search.proposals.sampled import Sampled
from search.proposals.seed_race import SeedRace
from search.proposals.source import LATER
from search.study.outline import Outline
from search.tune.early_stopping import EarlyStopping
from spaces.load import load_space, space_of
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState
from tests.journals import event
from tests.journals import planned as planned_trial
from tests.search.conftest import make_space
from tests.search.test_rebuilt import ASHA, FINITE, IDS, METRIC, chance, check, count, sampled_space

Run = tuple[int, int]
"""Number of a point, and seed."""


def literal(value: Any, seeds: list[int], trials: int) -> tuple[list[Run], int]:
    """One trial after the other: what is run, and the incumbent, told as the rule is written."""
    runs: list[Run] = [(0, seeds[0])]
    best, new = 0, 1

    def of(point: int) -> list[int]:
        return [seed for number, seed in runs if number == point]

    def lead(point: int) -> float:
        shared = [seed for seed in of(point) if seed in of(best)]
        return sum(value(point, s) - value(best, s) for s in shared) / len(shared)

    while len(runs) < trials:
        runs.append((new, seeds[0]))
        stays = lead(new) >= 0
        if stays and len(of(best)) == 1:
            best = new
        if len(of(best)) < len(seeds):
            runs.append((best, seeds[len(of(best))]))
        while stays and best != new:
            runs.append((new, seeds[len(of(new))]))
            stays = lead(new) >= 0
            if stays and len(of(new)) == len(of(best)):
                best = new
        new += 1
    return runs[:trials], best


@pytest.mark.parametrize("draw", range(30))
@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_one_trial_after_the_other_is_the_rule_as_written(draw: int, goal: str) -> None:
    stream = random.Random(draw)
    means = [stream.gauss(0, 1) for _ in range(200)]
    sign = 1 if goal == "maximize" else -1

    def value(point: int, seed: int) -> float:
        return means[point] + chance(draw, point, seed) * 3

    seeds = stream.sample(range(100), 5)
    race = SeedRace(seeds, lambda found: sign * found)
    runs: list[Run] = []
    while len(runs) < 90:
        further = race.next()
        new = 1 + max((point for point, _ in runs), default=-1)
        point, seed = (int(further[0]), further[1]) if further else (new, seeds[0])
        race.take(str(point), seed)
        race.tell(str(point), seed, sign * value(point, seed))
        runs.append((point, seed))
    expected, best = literal(value, seeds, 90)
    assert runs == expected
    if race.next() is None:  # else it was cut within the race of a challenger
        assert race.incumbent == str(best)
    assert len(set(runs)) == 90


def test_a_failed_challenger_is_out_and_a_failed_seed_of_the_incumbent_is_passed_over() -> None:
    race = SeedRace([0, 1, 2], float)

    def run(point: str, seed: int, value: float | None) -> None:
        race.take(point, seed)
        race.tell(point, seed, value)

    run("a", 0, None)
    assert race.incumbent is None and race.next() is None
    run("b", 0, 0.5)
    race.take("c", 0)
    assert race.next() == ("b", 1)  # owed, as a challenger has begun
    run("b", 1, None)
    race.tell("c", 0, 0.6)
    assert race.incumbent == "b"  # it has not the seed that the incumbent was given
    assert race.next() == ("c", 1)
    run("c", 1, 0.1)
    assert race.incumbent == "c"  # by seed 0, the only one for which both have a value
    run("d", 0, 0.7)
    assert race.next() == ("c", 2)
    race.take("c", 2)
    assert race.next() == ("d", 1)
    run("d", 1, None)
    assert race.next() is None and race.is_open


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": {"name": "random"}},
        {"sampler": {"name": "tpe"}, "scheduler": {"name": "none"}, "first_points": []},
        {"axes": FINITE, "constraints": [], "first_points": [], "scheduler": {"name": "none"}},
        {"sampler": {"name": "random", "per": "methods"}, "scheduler": {"name": "none"},
         "first_points": []},
    ],
    ids=["asha", "tpe", "finite", "per_method"],
)  # fmt: skip
def test_a_study_that_is_cut_anywhere_goes_on_as_in_one_go(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    space = sampled_space("random", **{"seeds": {"race": 3}, "budget": {"trials": 24}, **changes})
    journal = check(space, tmp_path, slice(7, None, 11))
    planned = [e for e in journal if e["kind"] == "planned"]
    assert count(journal)["planned"] == 24 or "axes" in changes
    seeds = [[e["seed"] for e in planned if e["point"] == point] for point in
             dict.fromkeys(e["point"] for e in planned)]  # fmt: skip
    assert all(found == [0, 1, 2][: len(found)] for found in seeds)
    assert {len(found) for found in seeds} >= {1, 3}
    further = {e["trial"] for e in planned if e["seed"]}
    assert not further & {e["trial"] for e in journal if e["kind"] == "pruned"}
    # Whom the study selects and reports is the incumbent of the race.
    state = StudyState.of(map(event, journal), METRIC)
    selected = Results.of(space, state).ranking().selected
    assert selected is not None and len(selected.seeds) == max(map(len, seeds))


def test_a_finite_space_ends_when_the_last_point_has_raced() -> None:
    space = make_space(axes=FINITE, seeds={"race": 3}, budget={"trials": 100})
    planner = Planner(Sampled(space, "s"), IDS, most_trials(space))
    running: list[Planned] = []
    seen: list[Planned] = []
    later = 0
    while (new := planner.new()) is not None or running:
        if isinstance(new, Planned):
            running.append(new)
            seen.append(new)
        later += new is LATER
        if new is LATER or new is None or len(running) > 3:
            ended = running.pop(0)
            value = chance(ended.point, ended.seed)
            planner.tell(ended, {"status": "completed", METRIC: value})
    assert later and len({one.point for one in seen}) == 8
    best = [p for p in seen if p.seed == 2]
    assert best and len(seen) < 24


@pytest.mark.parametrize("kept", [4, 1000])
def test_the_sampler_reads_the_mean_of_all_seeds_so_far(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.proposals.asked.KEPT", kept)
    space = make_space(seeds={"race": 3}, budget={"trials": 9})
    source = Sampled(space, "s")
    planner = Planner(source, IDS, 30)
    values: dict[str, list[float]] = {}
    while isinstance(new := planner.new(), Planned):
        value = chance(new.point, new.seed)
        values.setdefault(new.point, []).append(value)
        planner.tell(new, {"status": "completed", METRIC: value})
    trials = source._points.study.get_trials(deepcopy=False)
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert {t.value for t in trials} <= {fsum(v) / len(v) for v in values.values()}
    assert len(trials) < len(values) if kept == 4 else len(trials) == len(values)
    raced = [found for found in values.values() if len(found) == 3]
    means = {fsum(found) / 3 for found in raced}
    assert means and (kept == 4 or means <= {t.value for t in trials})


def raced() -> Space:
    return make_space(seeds={"race": 5}, scheduler=ASHA, base={"train.epochs": 9})


def test_a_space_says_it_and_reads_it_again() -> None:
    space = raced()
    assert (space.seeds, space.races_seeds, space.least_seeds) == ((0, 1, 2, 3, 4), True, 1)
    assert space_of(space.as_dict()).as_dict() == space.as_dict()
    assert space.as_dict()["seeds"] == {"race": [0, 1, 2, 3, 4]}
    outline = Outline.model_validate(space.as_dict())
    assert (outline.seeds, outline.races_seeds) == (space.seeds, True)
    study = Study({"kind": "search", "space": space.as_dict()})
    assert (study.seeds, study.races_seeds, study.races) == (space.seeds, True, False)
    config = space.config({"optim.lr": 0.01, "optim.weight_decay": 0.0}, 0)
    stopping = EarlyStopping(space, StudyState(METRIC))
    first, again = (
        planned_trial("00000", one, "sampler", "d", "p")
        for one in (config, config.replace_paths({"seed": 1}))
    )
    assert stopping.decisions(first) == [1, 2, 4, 8, 9]
    assert stopping.decisions(again) == [9]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": {"race": 1}}, r"seeds.race must be the most seeds of a point, 2 or more, got 1"),
        ({"seeds": {"race": 0}}, r"seeds.race must be a count n >= 1"),
        ({"seeds": {"race": None}}, r"seeds.race must be the most seeds"),
        ({"seeds": {"race": [3, 3]}}, r"seeds.race lists a seed twice"),
        ({"seeds": {"rase": 3}}, r"seeds has only the key 'race', got \{'rase': 3\}"),
        ({"seeds": {"race": 3}, "objective": [{"metric": METRIC}, {"metric": "duration_s"}]},
         r"seeds.race compares points by one objective, got 2 .*write seeds: 3"),
        ({"axes": None, "sampler": None, "scheduler": None, "budget": None,
          "ablation": {"design": "components", "rows": {"a": {"optim.lr": 0.1}, "b": {}},
                       "seeds": {"race": 3}}}, r"ablation.seeds of an ablation is a count"),
    ],
)  # fmt: skip
def test_what_is_no_race_is_said(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_space(**changes)


def test_it_is_set_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {methods: [linear]}\naxes: {optim.lr: {float: [0.01, 0.1]}}\n"
        "seeds: 2\nbudget: {trials: 4}\n"
    )
    assert load_space(str(path), {"seeds.race": 4}).seeds == (0, 1, 2, 3)
    assert load_space(str(path), {"seeds.race": 4}).races_seeds
