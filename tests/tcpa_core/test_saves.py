"""A worker saves one epoch while it trains the next, and tells nothing that is not on disk."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tcpa_core.record.events import Ended, Epoch, Event, Notice, TrialEvent
from tcpa_core.training import checkpoint, saved_member, worker
from tcpa_core.training.checkpoint import load_checkpoint
from tcpa_core.training.commands import Extend, Stop, Submit
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.trained import load_trained
from tcpa_core.training.worker import Worker

SETTINGS: dict[str, Any] = {"methods": ["linear"], "train.epochs": 4, "train.batch_size": 512}
PATIENCE_S = 60.0
"""How long a thread is waited for that will come, unless the test is to fail."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Worker]:
    """A worker with trials a, b, ... that may train up to an epoch."""

    def make(trials: str = "a", until_epoch: int = 4, **settings: Any) -> Worker:
        made = Worker(tmp_path / "study", tmp_path / "cache", "cpu")
        changed = {name.replace("__", "."): value for name, value in settings.items()}
        for seed, trial in enumerate(trials):
            params = {**SETTINGS, "seed": seed, **changed}
            made.take(Submit(trial=trial, params=params, until_epoch=until_epoch))
        return made

    return make


def turns(worker: Worker) -> Iterator[list[Event]]:
    """What each call of `work` tells, to the end."""
    while not worker.idle:
        yield worker.work()


def epochs(events: list[Event]) -> list[tuple[str, int]]:
    return [(e.trial, e.report.epoch) for e in events if isinstance(e, Epoch)]


def saved_epoch(folder: Path) -> int:
    """Of a checkpoint; 0 where there is none."""
    path = folder / "last.safetensors"
    return int(load_checkpoint(path)[1]["epoch"]) if path.exists() else 0


class Spy:
    """Notes when epochs are begun, and holds the writing of a trial until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.written = 0
        self.in_flight: list[int] = []
        """Epochs begun and not written, whenever one begins."""
        self.next_epoch = threading.Event()
        run_epoch, save = Pack.run_epoch, saved_member.save_member

        def run(pack: Pack, members: list[Member]) -> Any:
            self.begun += 1
            self.in_flight.append(self.begun - self.written)
            if self.begun > 1:
                self.next_epoch.set()
            return run_epoch(pack, members)

        def write(member: Member, *args: Any) -> None:
            if member.epoch == 1:
                assert self.next_epoch.wait(PATIENCE_S), "nothing is trained meanwhile"
            save(member, *args)
            self.written += 1

        monkeypatch.setattr(Pack, "run_epoch", run)
        monkeypatch.setattr(worker, "save_member", write)


def test_an_epoch_is_trained_while_the_one_before_is_written(
    make: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    told = [epochs(events) for events in turns(make())]
    assert told == [[("a", 1)], [("a", 2)], [("a", 3)], [("a", 4)]]
    assert max(spy.in_flight) == 2, "one that trains and one that is written"


@pytest.mark.parametrize("trials", ["a", "abc"])
def test_what_is_told_is_on_disk(make: Callable[..., Worker], tmp_path: Path, trials: str) -> None:
    ended: set[str] = set()
    for events in turns(make(trials)):
        for event in events:
            assert isinstance(event, TrialEvent) and event.trial not in ended
            folder = tmp_path / "study" / "checkpoints" / event.trial
            if isinstance(event, Epoch):
                assert saved_epoch(folder) >= event.report.epoch
            if isinstance(event, Ended):
                ended.add(event.trial)
                assert saved_epoch(folder) == event.result.num_epochs == 4
                best = load_checkpoint(folder / "best.safetensors")[1]
                assert best["selected"]["epoch"] == event.result.best_epoch
    assert ended == set(trials)


def test_a_trial_that_is_stopped_leaves_its_best_state(
    make: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = make("ab", until_epoch=2)
    events = [event for turn in turns(worker) for event in turn]
    folder = tmp_path / "study" / "checkpoints" / "a"
    assert not (folder / "best.safetensors").exists(), "it is written once"
    now = load_trained(folder / "last.safetensors")
    worker.take(Extend(trial="b", until_epoch=3))
    worker.take(Stop(trial="a"))
    events += [event for turn in turns(worker) for event in turn]
    of_a = [event for event in events if isinstance(event, TrialEvent) and event.trial == "a"]
    assert [event.kind for event in of_a] == ["started", "epoch", "epoch", "pruned"]
    best = load_trained(folder / "best.safetensors")
    for name, tensor in best.state_dict().items():
        assert torch.equal(tensor, now.state_dict()[name]), name


def test_a_stop_that_comes_in_an_epoch_ends_the_trial_after_it(
    make: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make("ab")
    run_epoch = Pack.run_epoch

    def run(pack: Pack, members: list[Member]) -> Any:
        if members[0].epoch == 1:
            worker.take(Stop(trial="a"))
        return run_epoch(pack, members)

    monkeypatch.setattr(Pack, "run_epoch", run)
    events = [event for turn in turns(worker) for event in turn]
    of_a = [event for event in events if isinstance(event, TrialEvent) and event.trial == "a"]
    assert [event.kind for event in of_a] == ["started", "epoch", "epoch", "pruned"]
    assert isinstance(of_a[-1], Ended) and of_a[-1].result.num_epochs == 2


def test_a_suspect_is_told_before_others_train(
    make: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that dies of them would count against it."""
    run_epoch, together = Pack.run_epoch, []

    def run(pack: Pack, members: list[Member]) -> Any:
        together.append([member.trial for member in members])
        return run_epoch(pack, members)

    monkeypatch.setattr(Pack, "run_epoch", run)
    worker = make("ab")
    params = {**SETTINGS, "seed": 9}
    worker.take(Submit(trial="suspect", params=params, until_epoch=4, alone=True))
    events = worker.work()
    assert epochs(events) == [("suspect", 1)] and together == [["suspect"]]
    assert not worker.idle


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial counts as too large to be written after every epoch."""
    monkeypatch.setattr(saved_member, "LARGE_BYTES", 0)


@pytest.mark.usefixtures("large")
def test_a_large_trial_is_told_when_it_is_written(
    make: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = make("a", until_epoch=3)
    folder = tmp_path / "study" / "checkpoints" / "a"
    told = []
    for events in turns(worker):
        told.append(epochs(events))
        notices = [event for event in events if isinstance(event, Notice)]
        assert len(notices) == (len(told) == 1), "said once"
        assert saved_epoch(folder) == (3 if told[-1] else 0)
    assert told == [[], [], [("a", 1), ("a", 2), ("a", 3)]], "it waits for more epochs: due"
    worker.take(Extend(trial="a", until_epoch=4))
    (events,) = turns(worker)
    assert [event.kind for event in events] == ["epoch", "completed"]


@pytest.mark.usefixtures("large")
def test_a_large_trial_is_written_every_few_minutes(
    make: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            now[0] += 200.0
            return now[0]

    monkeypatch.setattr(saved_member, "time", Clock)
    told = [epochs(events) for events in turns(make("a"))]
    assert told == [[], [("a", 1), ("a", 2)], [], [("a", 3), ("a", 4)]]


@pytest.mark.usefixtures("large")
def test_a_large_trial_that_is_stopped_tells_all_its_epochs(
    make: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = make("a")
    events = worker.work()
    worker.take(Stop(trial="a"))
    events += [event for turn in turns(worker) for event in turn]
    found = epochs(events)
    assert found == [("a", n) for n in range(1, len(found) + 1)] and events[-1].kind == "pruned"
    assert saved_epoch(tmp_path / "study" / "checkpoints" / "a") == len(found)


def test_a_run_that_is_broken_off_leaves_its_best_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_member, "LARGE_BYTES", 0)

    def stop(report: Any) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(SETTINGS, on_epoch=stop, folder=tmp_path / "t", cache_dir=tmp_path / "cache")
    assert saved_epoch(tmp_path / "t") == 2
    assert load_checkpoint(tmp_path / "t" / "best.safetensors")[1]["epoch"] == 2
    seen: list[int] = []
    run_trial(
        SETTINGS,
        on_epoch=lambda report: seen.append(report.epoch),
        folder=tmp_path / "t",
        cache_dir=tmp_path / "cache",
    )
    assert seen == [3, 4]


def test_every_write_of_a_turn_has_ended_before_a_fault_is_told(
    make: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the trials up finds no writer of the worker before."""
    others_done = threading.Event()
    save = checkpoint.save_checkpoint

    def write(path: Path, *args: Any) -> None:
        if path.parent.name == "a":
            raise OSError(28, "No space left on device")
        save(path, *args)
        others_done.set()

    monkeypatch.setattr(saved_member, "save_checkpoint", write)
    with pytest.raises(OSError, match="No space"):
        make("ab", until_epoch=1).work()
    assert others_done.is_set()
