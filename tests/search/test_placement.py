"""How many trials a worker trains together."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from search.driver.concurrency import largest_trials, measured_slots
from search.driver.placement import Placement
from search.driver.workforce import Workforce
from search.workers.sizing import SLOTS_WITHOUT_GAIN, Sizing, Speeds, worth_slots
from spaces.sections import Cluster
from tcpa_core.errors import StoppedError
from tcpa_core.record.events import Notice
from tests.search.conftest import make_space


@pytest.mark.parametrize(
    ("asked", "gpus", "count"),
    [
        ({}, 2, 2),
        ({}, 0, 8),
        ({"gpus_per_worker": 0.5}, 2, 4),
        ({"gpus_per_worker": 0.3}, 2, 6),  # no worker has parts of two GPUs
        ({"gpus_per_worker": 0.3333}, 1, 3),
        ({"gpus_per_worker": 0.6}, 2, 2),
        ({"gpus_per_worker": 0.5}, 0, 8),
        ({"workers": 3}, 2, 3),
        ({"workers": 3}, 0, 3),
    ],
)
def test_as_many_workers_as_devices_have_room_for(
    asked: dict[str, Any], gpus: int, count: int
) -> None:
    assert Placement(**asked).num_workers(gpus, 8) == count


@pytest.mark.parametrize(
    ("options", "count", "part"),
    [({}, 6, 0.5), ({"workers": 2}, 2, 0.5), ({"gpus_per_worker": 0.25}, 6, 0.25)],
)
def test_options_count_before_what_the_space_asks_of_a_cluster(
    options: dict[str, Any], count: int, part: float
) -> None:
    cluster = Cluster(workers=6, gpus_per_worker=0.5, priority=2.0)
    placement = Placement(**options).within(cluster)
    assert (placement.num_workers(4, 8), placement.gpu_share) == (count, part)
    assert placement.priority == 2.0
    assert placement.within(cluster) == placement
    assert Placement(**options).within(Cluster()) == Placement(**options)


class Interrupted:
    """A measurement that is interrupted."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, sizing: Sizing) -> Speeds | None:
        self.times += 1
        return None


@pytest.mark.parametrize("size", [1, 3])
def test_a_user_may_cap_what_a_measurement_would_find(size: int) -> None:
    space = make_space(budget={"trials": 80, "pack_size": size})
    assert measured_slots(space, 0, 2, Interrupted()) == size


@pytest.mark.parametrize(("trials", "is_measured"), [(31, False), (32, True)])
def test_a_short_search_measures_nothing(trials: int, is_measured: bool) -> None:
    measure = Interrupted()
    assert measured_slots(make_space(budget={"trials": trials}), 0, 2, measure) == 4
    assert bool(measure.times) is is_measured


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        ([], 4),  # the worker died of it
        ([{1: 100.0, 2: 160.0, 4: 240.0, 8: 400.0, 16: 790.0}], 10),  # a fourth of 80 trials on 2
        ([{1: 100.0}], SLOTS_WITHOUT_GAIN),
    ],
)
def test_a_search_keeps_four_rounds(speeds: Speeds, slots: int) -> None:
    space = make_space(budget={"trials": 80})
    assert measured_slots(space, 0, 2, lambda _: speeds) == slots


def test_a_design_is_spread_over_the_workers() -> None:
    cut = dict.fromkeys(("axes", "objective", "sampler", "scheduler", "budget"))
    ablation = {
        "design": "one_factor",
        "factors": {"optim.lr": [0.001, 0.01, 0.1]},
        "seeds": [0, 1, 2],
    }
    space = make_space(**cut, ablation=ablation)
    assert measured_slots(space, 0, 2, Interrupted()) == 5
    assert measured_slots(space, 4, 2, Interrupted()) == 3
    assert measured_slots(space, 9, 2, Interrupted()) == 1


def test_a_probe_trains_the_largest_trial_of_each_kind() -> None:
    axes = {
        "methods": {"choice": [["linear"], ["vpt"]]},
        "vpt.num_prompts": {"int": [1, 50]},
        "train.batch_size": {"choice": [32, 64]},
    }
    found = largest_trials(make_space(base={"train.epochs": 6}, axes=axes))
    kinds = {(*flat["methods"], flat["train.batch_size"]) for flat in found}
    assert kinds == {("linear", 32), ("linear", 64), ("vpt", 32), ("vpt", 64)}
    assert {flat["vpt.num_prompts"] for flat in found if flat["methods"] == ["vpt"]} == {50}


@pytest.mark.parametrize(
    ("speeds", "slots"),
    [
        ([{1: 100.0}], SLOTS_WITHOUT_GAIN),  # nothing is gained
        ([{1: 100.0, 2: 104.0}], SLOTS_WITHOUT_GAIN),  # too little
        ([{1: 100.0, 2: 160.0, 4: 240.0, 8: 250.0}], 4),
        ([{1: 100.0, 2: 160.0, 4: 240.0}, {1: 90.0, 2: 150.0, 4: 220.0}], 8),  # four of each kind
        ([{1: 100.0, 2: 160.0}, {}], 4),  # a kind that trains alone waits for its turn
        ([{1: 100.0}, {1: 1e6, 2: 2e6, 4: 4e6}], SLOTS_WITHOUT_GAIN),  # what gains takes no time
        ([{}, {}], SLOTS_WITHOUT_GAIN),
    ],
)
def test_a_worker_holds_as_many_trials_as_pay(speeds: list[dict[int, float]], slots: int) -> None:
    assert worth_slots(speeds) == slots


class FakeCluster:
    """A dispatcher that starts what it is told, and a cluster with as many devices as set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **placement: Any) -> None:
        self.gpus, self.cpus = 0, 4
        self.nodes: list[dict[str, Any]] = []
        self.started: list[tuple[int, float]] = []
        self.said: list[Notice] = []
        self.add_workers = SimpleNamespace(remote=self._add)
        monkeypatch.setattr("search.driver.workforce.Devices", lambda: self)
        # Ray would start a cluster for the question, or wait for one that has ended.
        context = SimpleNamespace(gcs_address="a:1")
        monkeypatch.setattr("search.driver.workforce.ray.get_runtime_context", lambda: context)
        study = SimpleNamespace(name="s")
        where = Placement(address="a:1", **placement)
        self.workforce = Workforce(make_space(), study, where, self.said.append)  # type: ignore[arg-type]
        self.workforce.dispatcher = self
        self.workforce._extra_call = Future()
        self._add(4, 0.0)

    def _add(self, count: int, num_gpus: float) -> Any:
        self.started.append((count, num_gpus))
        self.workforce._stranded = Future()
        return SimpleNamespace(future=lambda: self.workforce._stranded)

    def strand(self) -> None:
        self.workforce._stranded.set_result(["GPU 0 of a is not used: it is full"])


def test_gpus_that_join_are_used_once_and_again_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster(monkeypatch, gpus_per_worker=0.5)
    cluster.workforce._num_workers = 4
    cluster.workforce.follow()
    assert cluster.started == [(4, 0.0)] and not cluster.said
    cluster.gpus = 1
    cluster.workforce.follow()
    cluster.workforce.follow()
    assert cluster.started[1:] == [(2, 0.5)]
    assert "1 GPUs are in the cluster now" in cluster.said[-1].text
    cluster.strand()
    cluster.workforce.follow()
    cluster.workforce.follow()
    assert cluster.started[2:] == [(4, 0.0)], "the useless GPU is not taken again"
    assert "torch can use no GPU" in cluster.said[-1].text
    cluster.gpus = 2
    cluster.workforce.follow()
    assert cluster.started[3:] == [(4, 0.5)]


def test_gpus_that_join_are_left_alone_where_the_user_wants_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster(monkeypatch, device="cpu")
    cluster.workforce._num_workers = 4
    cluster.gpus = 2
    cluster.workforce.follow()
    assert cluster.started == [(4, 0.0)] and not cluster.said
    cluster.strand()
    with pytest.raises(StoppedError, match="No device is left to train on"):
        cluster.workforce.follow()


def test_a_user_who_wants_gpus_is_told_at_once_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster(monkeypatch, device="cuda")
    with pytest.raises(StoppedError, match=r"--device cuda: Ray counts no GPU at a:1; see"):
        cluster.workforce._starts_on_gpus()
    waiting = FakeCluster(monkeypatch, device="cuda", workers=2, gpus_per_worker=0.5)
    assert waiting.workforce._starts_on_gpus()
    assert waiting.workforce.num_gpus == 1.0
    assert "waits for the first node with one" in waiting.said[-1].text
