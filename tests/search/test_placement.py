"""How many trials a worker trains together."""

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_space

from search.launch import IN_TURN, _Run, worth_slots


def run_of(monkeypatch: pytest.MonkeyPatch, asked: list[object], **budget: int) -> Any:
    """A run on two workers whose measurement is interrupted."""
    monkeypatch.setattr("ray.wait", lambda *_, **__: ([], []))
    return SimpleNamespace(
        _space=make_space(budget=budget),
        _crew=SimpleNamespace(num_workers=2, num_gpus=0),
        _dispatcher=SimpleNamespace(measure=SimpleNamespace(remote=lambda *_: asked.append(_))),
        _stop_reason="interrupted",
    )


@pytest.mark.parametrize("size", [1, 3])
def test_a_user_may_cap_what_a_measurement_would_find(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(monkeypatch, [], trials=80, pack_size=size)
    assert _Run._measured_slots(run) == size


@pytest.mark.parametrize(("trials", "is_measured"), [(31, False), (32, True)])
def test_a_short_search_measures_nothing(
    trials: int, is_measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    assert _Run._measured_slots(run_of(monkeypatch, asked, trials=trials)) == 4
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
