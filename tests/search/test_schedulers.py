"""Each scheduler decides as a literal one does, on streams of trials that cross in time."""

import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

from search.tune.schedulers._rungs import num_ahead
from search.tune.schedulers.base import Scheduler, scheduler_class
from search.tune.schedulers.hyperband import brackets_of
from tcpa_core.errors import ConfigError
from tests.search.conftest import make_space

EPOCHS = 27
Report = tuple[str, int, float]


def made(epochs: int = EPOCHS, **settings: Any) -> Scheduler:
    """The scheduler of a space of one length of trials."""
    space = make_space(base={"train.epochs": epochs}, scheduler=settings)
    return scheduler_class(space.scheduler.name)(space)


def stream(seed: int, trials: int = 60, at_once: int = 6) -> Generator[Report, bool]:
    """What trials report in the order in which they come to it; `send` False to end the last one's.

    Some values are equal, curves rise and cross.
    """
    draw = random.Random(seed)
    waiting = [f"{n:05d}" for n in range(trials)]
    running: dict[str, int] = {}
    limits = {name: draw.random() for name in waiting}
    while waiting or running:
        while waiting and len(running) < at_once:
            running[waiting.pop(0)] = 0
        name = draw.choice(sorted(running))
        running[name] += 1
        epoch = running[name]
        value = round(limits[name] * (1 - 0.8**epoch) + 0.1 * draw.random(), 2)
        goes_on = yield name, epoch, value
        if not goes_on or epoch == EPOCHS:
            del running[name]


def decided(scheduler: Scheduler, seed: int) -> list[tuple[Report, bool]]:
    """Every report of a stream at a decision, and whether its trial went on."""
    reports, found = stream(seed), []
    report = next(reports)
    while True:
        name, epoch, value = report
        goes_on = True
        if epoch in (*scheduler.decisions(name, EPOCHS), EPOCHS):
            goes_on = scheduler.goes_on(name, epoch, [value])
            found.append((report, goes_on))
        try:
            report = reports.send(goes_on)
        except StopIteration:
            return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("grace", "factor"), [(1, 2), (1, 3), (2, 3), (3, 4)])
def test_asha_decides_as_that_of_ray(grace: int, factor: int, seed: int) -> None:
    ray_asha: Any = ASHAScheduler("epoch", "m", "max", EPOCHS, grace, factor)
    ours = decided(made(name="asha", grace_epochs=grace, reduction_factor=factor), seed)
    stopped = 0
    for (name, epoch, value), goes_on in ours:
        trial = SimpleNamespace(trial_id=name)
        if epoch == grace:
            ray_asha.on_trial_add(None, trial)
        if epoch == EPOCHS:
            ray_asha.on_trial_complete(None, trial, {"epoch": epoch, "m": value})
            continue
        told = ray_asha.on_trial_result(None, trial, {"epoch": epoch, "m": value})
        assert told == ("CONTINUE" if goes_on else "STOP"), (name, epoch)
        stopped += not goes_on
    assert stopped > 30


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("samples", [1, 3])
def test_median_decides_as_that_of_ray(samples: int, seed: int) -> None:
    rule = MedianStoppingRule("epoch", "m", "max", grace_period=1, min_samples_required=samples)
    stopped, trials = 0, defaultdict[str, Any](Mock)
    for (name, epoch, value), goes_on in decided(made(name="median", min_samples=samples), seed):
        result = {"epoch": epoch, "m": value}
        if epoch == EPOCHS:
            rule.on_trial_complete(NO_CONTROLLER, trials[name], result)
            continue
        told = rule.on_trial_result(NO_CONTROLLER, trials[name], result)
        assert told == ("CONTINUE" if goes_on else "STOP"), (name, epoch)
        stopped += not goes_on
    assert stopped > 10


NO_CONTROLLER: Any = SimpleNamespace(get_live_trials=lambda: [])


@pytest.mark.parametrize("grace", [2, 5])
def test_median_counts_from_the_grace_epoch_on(grace: int) -> None:
    curves: dict[str, list[float]] = defaultdict(list)
    stopped = 0
    for (name, epoch, value), goes_on in decided(made(name="median", grace_epochs=grace), seed=1):
        own = curves[name]
        own.append(value)
        assert epoch == grace + len(own) - 1
        others = [other[: len(own)] for who, other in curves.items() if who != name]
        means = [statistics.fmean(other) for other in others if len(other) == len(own)]
        worse = len(means) >= 3 and max(own) < statistics.median(means) - 1e-12
        assert goes_on is not worse or epoch == EPOCHS
        stopped += not goes_on
    assert stopped > 10


@pytest.mark.parametrize(("epochs", "grace", "factor", "expected"), [
    (81, 1, 3, [(1, 81), (3, 34), (9, 15), (27, 8), (81, 5)]),  # Table 1 of Li et al.
    (16, 2, 2, [(2, 8), (4, 6), (8, 4), (16, 4)]),
    (20, 3, 3, [(3, 9), (9, 5), (20, 3)]),
    (4, 4, 2, [(4, 1)]),
])  # fmt: skip
def test_brackets_are_those_of_hyperband(
    epochs: int, grace: int, factor: int, expected: list[tuple[int, int]]
) -> None:
    settings = {"name": "hyperband", "grace_epochs": grace, "reduction_factor": factor}
    space = make_space(base={"train.epochs": epochs}, scheduler=settings)
    assert brackets_of(space.scheduler, epochs) == expected
    scheduler = made(epochs, **settings)
    total = sum(trials for _, trials in expected)
    firsts = [next(iter(scheduler.decisions(f"{n:05d}", epochs)), epochs) for n in range(3 * total)]
    assert Counter(firsts[:total]) == Counter(firsts[-total:]) == dict(expected)
    for num in range(1, total):  # any first trials have the shares, to one trial
        for first, trials in expected:
            assert abs(firsts[:num].count(first) - num * trials / total) < 2


@pytest.mark.parametrize("brackets", [None, 2])
def test_each_bracket_decides_as_asha_among_its_own(brackets: int | None) -> None:
    hyperband = made(name="hyperband", reduction_factor=3, brackets=brackets)
    alone: dict[int, Any] = {}
    stopped: Counter[int] = Counter()
    for (name, epoch, value), goes_on in decided(hyperband, seed=3):
        first = next(iter(hyperband.decisions(name, EPOCHS)), EPOCHS)
        if first not in alone:
            alone[first] = ASHAScheduler("epoch", "m", "max", EPOCHS, first, 3)
        trial = SimpleNamespace(trial_id=name)
        (bracket,) = alone[first]._brackets
        told = bracket.on_result(trial, epoch, value)
        assert epoch == EPOCHS or told == ("CONTINUE" if goes_on else "STOP")
        stopped[first] += not goes_on
    assert len(alone) == (brackets or 4) and stopped[1] > 10 and stopped[3] > 3


def test_what_a_scheduler_is_meant_to_train() -> None:
    """Counted trial by trial, as if each rung let the exact share go on."""
    asha = make_space(base={"train.epochs": 20}, scheduler={"name": "asha", "grace_epochs": 2})
    expected = scheduler_class("asha").expected(asha.scheduler, 20)
    assert expected == pytest.approx(2 + 4 / 3 + 12 / 9 + 2 / 27)
    several = make_space(base={"train.epochs": 9}, scheduler={"name": "hyperband"})
    (_, n2), (_, n1), (_, n0) = brackets_of(several.scheduler, 9)
    total = n2 * (1 + 2 / 3 + 6 / 9) + n1 * (3 + 6 / 3) + n0 * 9
    found = scheduler_class("hyperband").expected(several.scheduler, 9)
    assert found == pytest.approx(total / (n2 + n1 + n0))
    assert scheduler_class("median").expected(asha.scheduler, 20) is None
    assert scheduler_class("none").expected(asha.scheduler, 20) == 20


def peeled(points: list[tuple[float, ...]]) -> list[list[tuple[float, ...]]]:
    """Fronts of non-dominated values by the definition."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    fronts, left = [], list(points)
    while left:
        front = [one for one in left if not any(beats(other, one) for other in left)]
        fronts.append(sorted(front))
        left = [one for one in left if one not in front]
    return fronts


def spaced(front: list[tuple[float, ...]], one: tuple[float, ...]) -> float:
    """Crowding distance of a member of a front without equal values on an axis."""
    found = 0.0
    for axis in range(len(one)):
        on_axis = sorted(other[axis] for other in front)
        place = on_axis.index(one[axis])
        if place in (0, len(front) - 1):
            return float("inf")
        found += (on_axis[place + 1] - on_axis[place - 1]) / (on_axis[-1] - on_axis[0])
    return found


@pytest.mark.parametrize("objectives", [2, 3])
def test_several_objectives_are_ranked_by_fronts_and_spacing(objectives: int) -> None:
    draw = random.Random(objectives)
    scheduler = made(name="asha", grace_epochs=1, reduction_factor=3)
    kept: list[list[tuple[float, ...]]] = []
    points: list[tuple[float, ...]] = []
    gone_on = 0
    for number in range(120):
        new = tuple(draw.random() for _ in range(objectives))
        points.append(new)
        fronts = peeled(points)
        level = next(n for n, front in enumerate(fronts) if new in front)
        own = spaced(fronts[level], new)
        ahead = sum(map(len, fronts[:level]))
        ahead += sum(spaced(fronts[level], one) > own + 1e-12 for one in fronts[level])
        assert num_ahead(kept, new) == ahead
        assert kept == fronts
        goes_on = scheduler.goes_on(f"{number:05d}", 1, new)
        assert goes_on is (ahead <= max(0, number - 1) / 3)
        gone_on += goes_on
    assert 30 < gone_on < 90


def test_equal_values_share_a_front() -> None:
    fronts: list[list[tuple[float, ...]]] = []
    points = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 0.0), (2.0, 2.0)]
    for new in points:
        num_ahead(fronts, new)
    assert fronts == peeled(points)


@pytest.mark.parametrize(("scheduler", "objective", "match"), [
    ({"name": "hyperband", "grace_epochs": 7}, None, r"grace_epochs must be <= train.epochs"),
    ({"name": "hyperband", "grace_epochs": 2, "brackets": 3}, None,
     r"brackets must be <= 2, got 3 .*no more fit into 6 epochs"),
    ({"name": "hyperband", "brackets": 0}, None, r"brackets must be .*got 0"),
    ({"name": "asha", "brackets": 2}, None, r"brackets is not a setting of 'asha', got 2"),
    ({"name": "hyperband", "min_samples": 2}, None, r"min_samples is not a setting of 'hyperband'"),
    ({"name": "median", "min_samples": 0}, None, r"min_samples must be .*got 0"),
    ({"name": "median"}, [{"metric": "val_accuracy"}, {"metric": "duration_s"}],
     r"'median' has one objective, got 2"),
])  # fmt: skip
def test_settings_that_fit_no_scheduler(scheduler: Any, objective: Any, match: str) -> None:
    changes = {"objective": objective} if objective else {}
    with pytest.raises(ConfigError, match=match) as raised:
        make_space(scheduler=scheduler, **changes)
    assert "\n" not in str(raised.value)
