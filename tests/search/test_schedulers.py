"""Each scheduler decides as a literal one does, on streams of trials that cross in time."""

import random
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler

from search.tune.schedulers.base import Scheduler, scheduler_class
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
