"""A trial that begins from the state which another one had after an epoch."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tcpa_core import plugins
from tcpa_core.config import METHODS, TrialConfig, begun_from, changeable
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.record.events import Ended, Epoch, Event, Parent, Started, TrialEvent
from tcpa_core.settings import BackboneConfig
from tcpa_core.training.checkpoint import load_checkpoint
from tcpa_core.training.commands import Extend, Stop, Submit
from tcpa_core.training.worker import Worker

SETTINGS: dict[str, Any] = {
    "methods": ["linear"],
    "train.epochs": 4,
    "train.batch_size": 32,
    "data.size_per_class": 5,
    "optim.lr": 0.02,
    "seed": 3,
}
AFTER_TWO = Parent("a", 2, replaces="c")


def submit(trial: str, until_epoch: int, parent: Parent | None = None, **changed: Any) -> Submit:
    params = TrialConfig.from_flat(
        {**SETTINGS, **{k.replace("__", "."): v for k, v in changed.items()}}
    ).flat()
    return Submit(trial=trial, params=params, until_epoch=until_epoch, parent=parent, keep_every=2)


def live(worker: Worker) -> list[Event]:
    events: list[Event] = []
    while not worker.idle:
        events += worker.work()
    return events


def of(events: list[Event], trial: str) -> list[TrialEvent]:
    return [e for e in events if isinstance(e, TrialEvent) and e.trial == trial]


def measured(events: list[TrialEvent]) -> list[dict[str, Any]]:
    """What an epoch gives that is no time."""
    times = {"duration_s", "images_per_s"}
    reports = [asdict(e.report) for e in events if isinstance(e, Epoch)]
    return [{k: v for k, v in report.items() if k not in times} for report in reports]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def new(tmp_path: Path, cache: Path) -> Callable[[], Worker]:
    """A worker of the study."""
    return lambda: Worker(tmp_path / "study", cache, "cpu")


@pytest.fixture
def worker(new: Callable[[], Worker]) -> Worker:
    """Has trained trial a for two of its four epochs."""
    made = new()
    made.take(submit("a", 2))
    live(made)
    return made


def folder_of(tmp_path: Path, trial: str) -> Path:
    return tmp_path / "study" / "checkpoints" / trial


def test_with_the_same_settings_it_goes_on_bit_by_bit_as_the_other_one(
    new: Callable[[], Worker], tmp_path: Path
) -> None:
    drawn: dict[str, Any] = {"methods": ["vpt"], "vpt__num_prompts": 2, "vpt__prompt_dropout": 0.2}
    worker = new()
    worker.take(submit("a", 2, **drawn))
    live(worker)
    worker.take(submit("b", 4, AFTER_TWO, **drawn))
    worker.take(Extend(trial="a", until_epoch=4))
    events = live(worker)
    assert measured(of(events, "b")) == measured(of(events, "a"))
    assert [one["epoch"] for one in measured(of(events, "b"))] == [3, 4]
    (tensors, info), (same, other) = (
        load_checkpoint(folder_of(tmp_path, trial) / "last.safetensors") for trial in "ab"
    )
    assert tensors.keys() == same.keys() and any(name.startswith("moment:") for name in tensors)
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    own = {"trial", "duration_s", "reports"}
    assert {k: v for k, v in info.items() if k not in own} == {
        k: v for k, v in other.items() if k not in own
    }


def test_its_epochs_and_time_are_its_own(worker: Worker) -> None:
    worker.take(submit("b", 4, AFTER_TWO))
    started, *rest = of(live(worker), "b")
    assert isinstance(started, Started) and started.epoch == 2
    ended = rest.pop()
    assert isinstance(ended, Ended) and ended.result.status == "completed"
    reports = [e.report for e in rest if isinstance(e, Epoch)]
    assert ended.result.num_epochs == len(reports) == 2
    assert ended.result.duration_s == pytest.approx(sum(one.duration_s for one in reports))


def test_what_was_selected_before_is_its_own_too(worker: Worker, tmp_path: Path) -> None:
    worker.take(submit("b", 4, AFTER_TWO, optim__lr=1e-12, optim__weight_decay=0.0))
    ended = of(live(worker), "b")[-1]
    assert isinstance(ended, Ended)
    known = load_checkpoint(folder_of(tmp_path, "a") / "epoch-2.safetensors")[1]["selected"]
    assert ended.result.best_epoch == known["epoch"] <= 2, "nothing is learnt any more"
    assert ended.result.val_accuracy == known["val_accuracy"]


def test_other_settings_count_from_its_first_step(worker: Worker) -> None:
    worker.take(submit("b", 4, AFTER_TWO, optim__lr=0.04))
    worker.take(Extend(trial="a", until_epoch=4))
    events = live(worker)
    first, second = (measured(of(events, trial)) for trial in "ab")
    assert [one["lr"] for one in second] == [2 * one["lr"] for one in first]
    assert second[0]["train_loss"] != first[0]["train_loss"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_taken_up_it_goes_on_from_its_own_checkpoint(
    worker: Worker, new: Callable[[], Worker], epochs: int
) -> None:
    worker.take(submit("b", 2 + epochs, AFTER_TWO, optim__lr=0.04))
    before = live(worker)
    again = new()
    again.take(submit("b", 4, AFTER_TWO, optim__lr=0.04))
    events = of(live(again), "b")
    assert isinstance(events[0], Started) and events[0].epoch == 2 + epochs
    assert measured(events)[:epochs] == measured(of(before, "b"))
    assert isinstance(events[-1], Ended) and events[-1].result.num_epochs == 2


def test_a_damaged_checkpoint_of_its_own_takes_it_back_to_where_it_began(
    worker: Worker, new: Callable[[], Worker], tmp_path: Path
) -> None:
    worker.take(submit("b", 3, AFTER_TWO))
    before = measured(of(live(worker), "b"))
    (folder_of(tmp_path, "b") / "last.safetensors").write_bytes(b"torn")
    again = new()
    again.take(submit("b", 3, AFTER_TWO))
    events = of(live(again), "b")
    assert isinstance(events[0], Started) and "begins anew" in events[0].note
    assert measured(events) == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "epoch-2.safetensors is missing; restore that file"),
        (lambda path: path.write_bytes(b"torn"), "cannot be read; restore that file"),
        (
            lambda path: path.write_bytes(path.with_name("last.safetensors").read_bytes()),
            "after epoch 3, not of trial a after epoch 2",
        ),
    ],
    ids=["missing", "torn", "of another epoch"],
)
def test_without_that_state_it_fails_instead_of_beginning_from_its_seed(
    worker: Worker, tmp_path: Path, spoil: Any, said: str
) -> None:
    worker.take(Extend(trial="a", until_epoch=3))
    live(worker)
    spoil(folder_of(tmp_path, "a") / "epoch-2.safetensors")
    worker.take(submit("b", 4, AFTER_TWO))
    (ended,) = of(live(worker), "b")
    assert isinstance(ended, Ended) and ended.result.status == "failed"
    assert said in ended.result.reason


def test_states_are_kept_before_they_are_told(new: Callable[[], Worker], tmp_path: Path) -> None:
    made = new()
    made.take(submit("a", 4))
    kept = folder_of(tmp_path, "a")
    while not made.idle:
        for event in made.work():
            if isinstance(event, Epoch) and event.report.epoch == 2:
                assert load_checkpoint(kept / "epoch-2.safetensors")[1]["epoch"] == 2
    # From the last epoch nobody goes on.
    assert sorted(path.name for path in kept.glob("epoch-*")) == ["epoch-2.safetensors"]


def test_one_that_ended_can_be_begun_from(worker: Worker) -> None:
    worker.take(Stop(trial="a"))
    live(worker)
    worker.take(submit("b", 3, AFTER_TWO))
    assert [one["epoch"] for one in measured(of(live(worker), "b"))] == [3]


def test_its_identity_tells_what_it_began_from() -> None:
    names = {
        begun_from(own, parent, epoch) for own in "ab" for parent in ("x", "y") for epoch in (1, 2)
    }
    assert len(names) == 8 and all(len(name) == 16 for name in names)


OTHERS = {
    "data.auto_augment": "rand-m9-mstd0.5-inc1",
    "data.color_jitter": [0.1, 0.1, 0.1, 0.1],
    "data.flip": True,
}
"""Other values than the default, of what is no number."""


def test_what_may_change_changes_no_tensor() -> None:
    backbone = load_backbone(BackboneConfig(), device="cpu")
    for path in sorted(changeable()):
        section = path.split(".")[0]
        base: dict[str, Any] = {
            "methods": [section if section in plugins.names(METHODS) else "linear"]
        }
        if section == "segment":
            base["task.name"] = "segment"
        default = TrialConfig.from_flat(base).flat()[path]
        other = OTHERS.get(path, 0.5 if default != 0.5 else 0.25)
        before, after = (
            init_member_state(backbone, TrialConfig.from_flat({**base, **changed}), 10)
            for changed in ({}, {path: other})
        )
        assert before.keys() == after.keys(), path
        assert all(torch.equal(before[name], after[name]) for name in before), path
