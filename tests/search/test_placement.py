"""How many trials a worker trains together."""

from types import SimpleNamespace
from typing import Any

import pytest

from search.driver.driver import IN_TURN, _Run, worth_slots
from tests.search.conftest import make_space


def run_of(monkeypatch: pytest.MonkeyPatch, **budget: int) -> Any:
    """A run whose measurement is interrupted."""
    monkeypatch.setattr("ray.wait", lambda *_, **__: ([], []))
    return SimpleNamespace(
        _space=make_space(budget=budget),
        _num_gpus=0,
        _stop_reason="interrupted",
    )


def dispatcher_of(asked: list[object]) -> Any:
    return SimpleNamespace(measure=SimpleNamespace(remote=lambda *args: asked.append(args)))


@pytest.mark.parametrize("size", [1, 3])
def test_a_user_may_cap_what_a_measurement_would_find(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(monkeypatch, trials=80, pack_size=size)
    assert _Run._measured_slots(run, dispatcher_of([]), workers=2) == size


@pytest.mark.parametrize(("trials", "is_measured"), [(31, False), (32, True)])
def test_a_short_search_measures_nothing(
    trials: int, is_measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    run = run_of(monkeypatch, trials=trials)
    assert _Run._measured_slots(run, dispatcher_of(asked), workers=2) == 4
    assert bool(asked) is is_measured


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        ([{1: 100.0}], IN_TURN),  # nothing is gained
        ([{1: 100.0, 2: 104.0}], IN_TURN),  # too little
        ([{1: 100.0, 2: 160.0, 4: 240.0, 8: 250.0}], 4),
        ([{1: 100.0, 2: 160.0, 4: 240.0}, {1: 90.0, 2: 150.0, 4: 220.0}], 8),  # four of each kind
        ([{1: 100.0, 2: 160.0}, {}], 4),  # a kind that trains alone waits for its turn
        ([{1: 100.0}, {1: 1e6, 2: 2e6, 4: 4e6}], IN_TURN),  # what gains takes no time
        ([{}, {}], IN_TURN),
    ],
)
def test_a_worker_holds_as_many_trials_as_pay(speeds: list[dict[int, float]], slots: int) -> None:
    assert worth_slots(speeds) == slots
