"""Placing trials on workers, and workers that die. Ray is real, the training is a stub."""

import time
from typing import Any

import pytest

from search.workers.failure_attribution import MAX_RESTARTS
from tests.search.dispatchers import get, planned

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def test_trial_waits_at_each_decision(client: Any) -> None:
    dispatcher = client()
    report = get(dispatcher.advance("00000", 1))
    assert (report["epoch"], report["done"]) == (1, False)
    time.sleep(0.2)
    assert dispatcher.epochs("00000") == [1]
    report = get(dispatcher.advance("00000", 3))
    assert (report["epoch"], report["done"]) == (3, False)
    report = get(dispatcher.advance("00000", 4))
    assert (report["epoch"], report["done"], report["status"]) == (4, True, "completed")
    assert dispatcher.epochs("00000") == [1, 2, 3, 4]
    assert dispatcher.kinds() == {"started": 1, "epoch": 4, "completed": 1}


def test_more_trials_than_places_are_queued_and_all_end(client: Any) -> None:
    """The stub refuses more trials than it has places for."""
    dispatcher = client(count=2, slots=1)
    reports = get([dispatcher.advance(f"{n:05d}", 4) for n in range(9)])
    assert all(report["status"] == "completed" for report in reports)
    workers = {e["worker"] for e in dispatcher.events if e["kind"] == "started"}
    assert dispatcher.kinds()["completed"] == 9
    assert workers <= {0, 1}


def test_stopped_trial_is_pruned_once_and_frees_its_place(client: Any) -> None:
    dispatcher = client(count=1, slots=1)
    get(dispatcher.advance("00000", 1))
    waiting = dispatcher.advance("00001", 4)
    get([dispatcher.actor.stop.remote("00000") for _ in range(3)])
    assert get(waiting)["status"] == "completed"
    get(dispatcher.actor.stop.remote("00001"))
    assert dispatcher.kinds()["pruned"] == 1
    assert dispatcher.kinds()["completed"] == 1


@pytest.mark.parametrize("saved", [False, True])
def test_trial_of_a_dead_worker_goes_on_elsewhere(client: Any, saved: bool) -> None:
    """Before its checkpoint an epoch is trained again; after it, its report is told again."""
    dispatcher = client(die={"trial": "00000", "epoch": 3, "saved": saved, "times": 1})
    others = [dispatcher.advance(f"{n:05d}", 4) for n in (1, 2)]
    report = get(dispatcher.advance("00000", 4))
    assert report["status"] == "completed"
    assert all(r["status"] == "completed" for r in get(others))
    assert dispatcher.epochs("00000") == [1, 2, 3, 4]
    starts = [e for e in dispatcher.events if (e["kind"], e.get("trial")) == ("started", "00000")]
    assert [s["epoch"] for s in starts] == [0, 3 if saved else 2]
    assert starts[0]["worker"] != starts[1]["worker"]
    (notice,) = (e for e in dispatcher.events if e["kind"] == "notice")
    assert notice["text"].startswith(
        "worker 0 was lost (its worker process has died); trials 00000"
    )
    assert "\n" not in notice["text"] and notice["text"].endswith("from their last epoch")


def test_death_at_a_decision_does_not_hang(client: Any) -> None:
    dispatcher = client(die={"trial": "00000", "epoch": 2, "saved": True, "times": 1})
    report = get(dispatcher.advance("00000", 2))
    assert report["epoch"] == 2
    assert get(dispatcher.advance("00000", 4))["status"] == "completed"


def test_trial_that_kills_every_worker_fails_alone(client: Any) -> None:
    dispatcher = client(die={"trial": "00001", "epoch": 2, "saved": False, "times": 99})
    other = dispatcher.advance("00000", 4)
    report = get(dispatcher.advance("00001", 4))
    assert report["status"] == "failed"
    assert get(other)["status"] == "completed"
    assert dispatcher.kinds()["failed"] == 1
    (failed,) = (e for e in dispatcher.events if e["kind"] == "failed")
    assert f"worker ended {MAX_RESTARTS + 1} times" in failed["reason"]


def test_workers_that_cannot_start_end_the_study(client: Any) -> None:
    dispatcher = client(broken=True)
    waiting = dispatcher.advance("00000", 4)
    fault, until = None, time.monotonic() + 60
    while fault is None and time.monotonic() < until:
        fault = dispatcher.read()
    assert fault is not None and "the stub was told not to start" in fault
    get(dispatcher.actor.halt.remote())
    assert get(waiting)["done"]


def test_finished_trial_can_be_tested(client: Any) -> None:
    dispatcher = client()
    get(dispatcher.advance("00000", 4))
    event = get(dispatcher.actor.test.remote(planned("00000")))
    assert event.kind == "tested"
    assert 0 < event.test_accuracy <= 1
    assert dispatcher.kinds()["tested"] == 1


def test_halt_lets_the_epoch_end_and_releases_everybody(client: Any) -> None:
    dispatcher = client(epoch_s=0.3)
    waiting = dispatcher.advance("00000", 4)
    while not dispatcher.epochs("00000"):
        time.sleep(0.05)
    get(dispatcher.actor.halt.remote())
    report = get(waiting)
    assert report["interrupted"] and report["done"]
    trained = dispatcher.epochs("00000")
    assert trained == list(range(1, len(trained) + 1)) and len(trained) < 4
    assert "completed" not in dispatcher.kinds()
