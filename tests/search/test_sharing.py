"""A study's workers among other jobs of one Ray. Ray is real, the training is a stub."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from search.ray_internals import cluster_view, kept_by_head
from search.workers.board import STALE_S, Board
from search.workers.cluster_view import Request
from search.workers.dispatcher import Dispatcher
from search.workers.pack_worker import WorkerSpec
from search.workers.shares import Claim
from tcpa_core.record.events import Event, Notice, Planned
from tests.search.conftest import FACTORY
from tests.search.stub import say_slots

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

TIMEOUT_S = 60


def spec_of(folder: Path, study_id: str = "0123", count: int = 2) -> WorkerSpec:
    return WorkerSpec(
        study_dir=folder,
        cache_dir=None,
        factory=FACTORY,
        count=count,
        slots=1,
        num_cpus=1,
        num_gpus=0,
        env={},
        study_id=study_id,
        is_shared=True,
    )


class Study:
    """A dispatcher with two workers, and what it tells."""

    def __init__(self, folder: Path, **orders: Any) -> None:
        (folder / "stub.json").write_text(json.dumps(orders))
        say_slots(folder, 1)
        options = ray.remote(num_cpus=0, max_concurrency=100)(Dispatcher)
        self.spec = spec_of(folder)
        self.actor = options.remote(self.spec, [], False)
        self.events: list[Event] = []
        ray.get(self.actor.start.remote())

    def train(self, *trials: str, epochs: int) -> list[Any]:
        params = {"train.epochs": epochs, "optim.lr": 0.01, "seed": 0}
        return [
            self.actor.advance.remote(
                Planned(trial=t, params=params, digest="d", point="p", origin="s", draw={}), epochs
            )
            for t in trials
        ]

    def wait_until(self, holds: Any, what: str) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not holds():
            assert time.monotonic() < until, f"no {what}: {self.told}"
            self.events += ray.get(self.actor.next_events.remote(0.1), timeout=TIMEOUT_S)[0]

    @property
    def told(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]

    def num(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)

    def end(self) -> None:
        ray.get(self.actor.halt.remote(), timeout=TIMEOUT_S)
        ray.kill(self.actor)


def requests(study: str) -> list[Request]:
    return [one for one in cluster_view().requests if one.study == study]


def test_what_waits_is_told_apart_by_who_asks(tmp_path: Path) -> None:
    @ray.remote(num_cpus=2)
    def task() -> None:
        time.sleep(60)

    running = task.remote()
    until = time.monotonic() + TIMEOUT_S
    while any(node.free.get("CPU", 0.0) for node in cluster_view().nodes.values()):
        assert time.monotonic() < until
        time.sleep(0.1)
    waiting = task.remote()
    study = Study(tmp_path)
    while not (requests(study.spec.mark) and requests("")):
        assert time.monotonic() < until
        time.sleep(0.1)
    (own,), (other,) = requests(study.spec.mark), requests("")
    assert (own.shapes, own.count, other.shapes, other.count) == (
        [{"CPU": 1.0}], 2, [{"CPU": 2.0}], 1
    )  # fmt: skip
    assert not own.not_on and own.can_have(cluster_view().nodes)
    for one in (waiting, running):
        ray.cancel(one, force=True)
    study.wait_until(lambda: study.num("notice") or not requests(study.spec.mark), "place")
    study.end()


def test_a_place_is_given_to_who_waits_and_idle_workers_are_released(tmp_path: Path) -> None:
    study = Study(tmp_path, epoch_s=0.3)
    trials = study.train("00000", "00001", epochs=40)
    study.wait_until(lambda: study.num("started") == 2, "trials on both workers")

    @ray.remote(num_cpus=1)
    def task() -> str:
        return "done"

    assert ray.get(task.remote(), timeout=TIMEOUT_S) == "done"
    study.wait_until(lambda: bool(study.told), "word on the place")
    assert "has ended (its place goes to another job, which waits); trials 0000" in study.told[0]
    ray.get(study.actor.expect.remote(2))
    assert [one["status"] for one in ray.get(trials, timeout=TIMEOUT_S)] == ["completed"] * 2
    study.wait_until(lambda: study.num("completed") == 2, "ends of all trials")
    assert study.num("epoch") == 80, "none is trained twice"
    # One worker is left for the test, and the task's place is free.
    until = time.monotonic() + TIMEOUT_S
    while sum(node.free.get("CPU", 0.0) for node in cluster_view().nodes.values()) != 1:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not requests(study.spec.mark)
    study.end()


def test_studies_read_each_other_s_lines_until_they_are_stale() -> None:
    now = 0.0
    one, two = Board(lambda: now), Board(lambda: now)
    claims = [
        Claim(study=f"tcpa-{name}", name=name, shape={"CPU": 1.0}, wants=3, held={"n": 1})
        for name in "ab"
    ]
    assert one.tell(claims[0]) == []
    assert two.tell(claims[1]) == [claims[0]]
    for later in (1.0, STALE_S - 1):
        now = later
        assert one.tell(claims[0]) == [claims[1]]
    now = 2 * STALE_S  # the second study has told nothing since
    assert one.tell(claims[0]) == []
    assert two.tell(claims[1]) == [claims[0]]
    two.leave("tcpa-b")
    two.tell(claims[1])  # by a thread that was about to
    assert one.tell(claims[0]) == []
    one.leave("tcpa-a")
    assert not kept_by_head()
