"""An epoch that never ends: found, named, replaced; its neighbours go on. Ray is real."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RayError

from search.driver.ray_session import connect
from search.workers.dispatcher import Dispatcher
from search.workers.failure_attribution import count_loss
from search.workers.pack_worker import WorkerSpec
from search.workers.ray_errors import loss_of
from search.workers.trial_progress import TrialProgress
from search.workers.watchdog import LIMIT_EPOCHS, MAX_LIMIT_S, MIN_LIMIT_S, Watchdog
from search.workers.worker_pool import HALT_S
from tcpa_core.record.events import Epoch, Planned
from tcpa_core.record.values import Pulse
from tcpa_core.training.commands import Limit, Submit
from tcpa_core.training.worker import Worker
from tests.search.conftest import FACTORY

PARAMS = {"train.epochs": 3, "optim.lr": 0.01, "seed": 0}


def planned(trial: str) -> Planned:
    return Planned(trial=trial, params=PARAMS, digest="d", point="p", origin="sampler", draw={})


class TestLimits:
    @pytest.mark.parametrize(
        ("usual", "limit"),
        [(None, MAX_LIMIT_S), (0.1, MIN_LIMIT_S), (9.0, LIMIT_EPOCHS * 9.0), (9000.0, MAX_LIMIT_S)],
    )
    def test_limit_follows_the_longest_epoch(self, usual: float | None, limit: float) -> None:
        watchdog = Watchdog(None)
        assert not watchdog.hangs(Pulse(signs=1, is_idle=False, usual_s=usual))
        assert watchdog.limit_s == limit
        assert watchdog.pause_s <= 10

    def test_only_silence_at_work_is_a_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])

        def seen(watchdog: Watchdog, pulse: Pulse | None) -> int:
            """Looks after which it is called a hang; 99: never."""
            for look in range(99):
                now[0] += watchdog.pause_s
                if watchdog.hangs(pulse):
                    return look
            return 99

        work = Pulse(signs=5, is_idle=False)
        assert seen(Watchdog(8.0), work) == 5
        assert seen(Watchdog(8.0), None) == 4, "an answer that does not come is silence"
        assert seen(Watchdog(8.0), Pulse(signs=5)) == 99, "nothing to do"
        watchdog = Watchdog(8.0)
        for signs in range(50):
            now[0] += 7.0
            assert not watchdog.hangs(Pulse(signs=signs, is_idle=False)), "slow"

    def test_a_machine_that_slept_is_no_hang(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        watchdog = Watchdog(8.0)
        watchdog.hangs(Pulse(signs=5, is_idle=False))
        now[0] += 40_000.0
        assert not watchdog.hangs(Pulse(signs=5, is_idle=False))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(None, 2):
        yield


class Client:
    """A dispatcher with one worker, and everything that it has reported."""

    def __init__(self, folder: Path, *, slots: int = 4, count: int = 1, **orders: Any) -> None:
        (folder / "stub.json").write_text(json.dumps({"slots": slots, **orders}))
        spec = WorkerSpec(
            study_dir=folder, cache_dir=None, factory=FACTORY, count=count, slots=slots,
            num_cpus=1, num_gpus=0, env={}, silence_s=orders.get("silence_s", 1.0),
        )  # fmt: skip
        options = {"num_cpus": 0, "max_concurrency": 100}
        self.actor = ray.remote(Dispatcher).options(**options).remote(spec, ["val_accuracy"], False)
        self.events: list[dict[str, Any]] = []
        ray.get(self.actor.start.remote())

    def run(self, trials: int) -> dict[str, str]:
        """Train trials to their ends; status by trial."""
        names = [f"{n:05d}" for n in range(trials)]
        ends = ray.get([self.actor.advance.remote(planned(t), 3) for t in names], timeout=90)
        self.read()
        return {t: end["status"] for t, end in zip(names, ends, strict=True)}

    def read(self) -> str | None:
        events, fault = ray.get(self.actor.next_events.remote(0.0))
        self.events += [event.as_dict() for event in events]
        return fault

    def notices(self) -> list[str]:
        return [event["text"] for event in self.events if event["kind"] == "notice"]

    def epochs(self) -> Counter[tuple[str, int]]:
        return Counter((e["trial"], e["epoch"]) for e in self.events if e["kind"] == "epoch")


@pytest.fixture
def client(tmp_path: Path, cluster: None) -> Iterator[Any]:
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        ray.get(each.actor.halt.remote())


def every_epoch(*trials: str) -> Counter[tuple[str, int]]:
    return Counter((trial, epoch) for trial in trials for epoch in (1, 2, 3))


@pytest.mark.integration
@pytest.mark.parametrize("deaf", [False, True])
def test_the_trial_that_hangs_fails_alone(client: Any, deaf: bool) -> None:
    """Deaf: the whole process stands still, as in a call that never gives the interpreter back."""
    dispatcher = client(hang={"trial": "00001", "epoch": 2, "deaf": deaf})
    ends = dispatcher.run(3)
    assert ends == {"00000": "completed", "00001": "failed", "00002": "completed"}
    (failed,) = (e for e in dispatcher.events if e["kind"] == "failed")
    assert failed["reason"].startswith("hung: ")
    hangs = [text for text in dispatcher.notices() if "hung: " in text]
    assert len(hangs) == 2, "once among others, once alone"
    assert "of 00000, 00001, 00002, pid " in hangs[0]
    if not deaf:
        assert "step in epoch 2 of 00001, pid " in hangs[1], "the neighbours were let out"
    assert dispatcher.epochs() == every_epoch("00000", "00002") + Counter({("00001", 1): 1})


@pytest.mark.integration
def test_a_trial_that_hung_once_goes_on(client: Any) -> None:
    dispatcher = client(hang={"trial": "00001", "epoch": 2, "times": 1})
    assert set(dispatcher.run(2).values()) == {"completed"}
    assert dispatcher.epochs() == every_epoch("00000", "00001")


@pytest.mark.integration
def test_a_slow_epoch_is_no_hang(client: Any) -> None:
    dispatcher = client(epoch_s=2.0, silence_s=6.0)
    assert dispatcher.run(1) == {"00000": "completed"}
    assert not dispatcher.notices()


@pytest.mark.integration
def test_a_worker_that_is_killed_for_its_memory_trains_fewer_together(client: Any) -> None:
    """The kernel's killer sends SIGKILL; nothing else says that memory ran out."""
    dispatcher = client(fits=2)
    assert set(dispatcher.run(4).values()) == {"completed"}
    assert dispatcher.epochs() == every_epoch("00000", "00001", "00002", "00003")
    (shrunk,) = (text for text in dispatcher.notices() if "together" in text)
    assert (
        "while training 4 trials together, perhaps out of memory; at most 2 will be trained"
        in shrunk
    )
    assert sum("was lost" in text for text in dispatcher.notices()) == 2


@pytest.mark.integration
def test_a_hang_does_not_block_an_orderly_end(client: Any, tmp_path: Path) -> None:
    dispatcher = client(hang={"trial": "00000", "epoch": 2}, silence_s=600.0)
    waiting = dispatcher.actor.advance.remote(planned("00000"), 3)
    until = time.monotonic() + 30
    while not dispatcher.epochs():
        assert time.monotonic() < until
        dispatcher.read()
        time.sleep(0.05)
    begun = time.monotonic()
    ray.get(dispatcher.actor.halt.remote())
    assert time.monotonic() - begun < HALT_S + 5
    assert ray.get(waiting)["interrupted"]
    saved = tmp_path / "checkpoints" / "00000" / "last.json"
    assert json.loads(saved.read_text()) == {"epoch": 1}


def test_a_worker_names_what_it_trains_and_shows_signs_of_life(tmp_path: Path) -> None:
    worker = Worker(tmp_path, tmp_path / "cache", "cpu")
    assert worker.pulse() == Pulse()
    pulses: list[Pulse] = []
    sign = worker._sign

    def look(*_: object) -> None:
        sign()
        pulses.append(worker.pulse())

    worker._sign = look  # type: ignore[method-assign]
    settings = {"methods": ["linear"], "train.epochs": 2, "train.batch_size": 512}
    for trial in ("a", "b"):
        worker.take(Submit(trial=trial, params=settings, until_epoch=2))
    while not worker.idle:
        worker.work()
    assert not any(pulse.is_idle for pulse in pulses)
    loading = [pulse for pulse in pulses if not pulse.trials]
    assert len(loading) > 100, "every image decoded is a sign"
    first, second = ([p for p in pulses if p.epoch == epoch] for epoch in (1, 2))
    assert {pulse.trials for pulse in first + second} == {("a", "b")}
    assert first[-1].usual_s is None and (second[0].usual_s or 0) > 0
    signs = [pulse.signs for pulse in pulses]
    assert signs == sorted(set(signs))
    assert worker.pulse().is_idle


def test_a_suspect_is_trained_alone_for_one_epoch_first(tmp_path: Path) -> None:
    worker = Worker(tmp_path, tmp_path / "cache", "cpu")
    settings = {"methods": ["linear"], "train.epochs": 2, "train.batch_size": 512}
    worker.take(Submit(trial="a", params=settings, until_epoch=2))
    worker.take(Submit(trial="b", params=settings, until_epoch=2))
    suspect = {**settings, "seed": 1}
    worker.take(Submit(trial="suspect", params=suspect, until_epoch=2, alone=True))
    together = []
    while not worker.idle:
        events = worker.work()
        together.append([e.trial for e in events if isinstance(e, Epoch)])
    assert together == [["suspect"], ["a", "b", "suspect"], ["a", "b"]]
    worker.take(Limit(members=1))
    worker.take(Submit(trial="c", params=settings, until_epoch=1))
    worker.take(Submit(trial="d", params=settings, until_epoch=1))
    assert [e.trial for e in worker.work() if isinstance(e, Epoch)] == ["c"]


@pytest.mark.parametrize(
    ("err", "why", "restarts"),
    [
        (RayError("The actor died because its node has died.\nMore."), "its node has died", 0),
        (ActorUnavailableError("no answer", None), "its node does not answer", 0),
        (
            RayError("Task was killed due to the node running low on memory."),
            "Task was killed due to the node running low on memory.",
            1,
        ),
        (
            RayError("The actor died because its worker process has died. More."),
            "its worker process has died",
            1,
        ),
    ],
)
def test_only_a_lost_node_is_nobodys_fault(err: RayError, why: str, restarts: int) -> None:
    trial = TrialProgress(planned("00000"), 3)
    loss = loss_of(err)
    assert loss.reason == why
    assert count_loss(loss, [trial], hung=[]) == 0
    assert trial.restarts == restarts
