"""What a worker makes of a command that it cannot carry out: it ends that command alone, or says
that its machine is the cause."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcpa_core.config import TrialConfig
from tcpa_core.errors import NodeError
from tcpa_core.record.events import Event, TrialEvent
from tcpa_core.training import commands
from tcpa_core.training.commands import Command, Extend, Limit, Stop, Submit
from tcpa_core.training.worker import Worker

SHIPPED = Path(__file__).parents[2] / "tcpa_core" / "weights" / "vit_nano.safetensors"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("a", "b"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            for n in range(4):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / kind / f"{n}.png")
    shutil.copy(SHIPPED, tmp_path / "w.safetensors")
    return tmp_path / "data"


@pytest.fixture
def config(data: Path) -> TrialConfig:
    return TrialConfig.from_flat(
        {
            "backbone.name": "vit_nano",
            "backbone.weights": str(data.parent / "w.safetensors"),
            "data.name": "folder",
            "data.root": str(data),
            "methods": ["linear"],
            "train.epochs": 1,
            "train.batch_size": 8,
        }
    )


def new_worker(folder: Path, config: TrialConfig) -> Worker:
    """A worker that was told what the files are now."""
    worker = Worker(folder / "study", folder / "cache", "cpu")
    found = worker.fingerprints([config.data], [config.backbone])
    worker.expect({config.data: found["data"][0]}, {config.backbone: found["weights"][0]})
    return worker


def told(worker: Worker, *commands: Command) -> list[Event]:
    for command in commands:
        worker.take(command)
    events: list[Event] = []
    while not worker.idle:
        events += worker.work()
    return events


def submit(config: TrialConfig, trial: str = "a", **changes: Any) -> Submit:
    return Submit(trial=trial, params={**config.flat(), **changes}, until_epoch=1)


def scoring(config: TrialConfig, **changes: Any) -> commands.Test:
    return commands.Test(trial="a", params={**config.flat(), **changes})


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [delete, cut, empty])
def test_a_test_without_its_checkpoint_ends_with_a_sentence(
    tmp_path: Path, config: TrialConfig, harm: Callable[[Path], None]
) -> None:
    worker = new_worker(tmp_path, config)
    assert told(worker, submit(config))[-1].kind == "completed"
    last = tmp_path / "study" / "checkpoints" / "a" / "last.safetensors"
    whole = last.read_bytes()
    harm(last)
    (tested,) = told(worker, scoring(config))
    assert tested.as_dict()["test_accuracy"] is None
    assert "last.safetensors" in tested.as_dict()["reason"]
    last.write_bytes(whole)
    (tested,) = told(worker, scoring(config))
    assert tested.as_dict()["test_accuracy"] is not None and "reason" not in tested.as_dict()


@pytest.mark.parametrize(
    "command",
    [
        Extend(trial="nobody", until_epoch=3),
        Stop(trial="nobody"),
        Limit(members=1),
        Limit(members=None),
        commands.Test(trial="a", params={"methods": ["nothing"]}),
        commands.Test(trial="a", params={}),
        Submit(trial="b", params={"methods": ["nothing"]}, until_epoch=1),
        Submit(trial="b", params={"train.epochs": "many"}, until_epoch=1),
    ],
)
def test_no_command_ends_a_worker(tmp_path: Path, config: TrialConfig, command: Command) -> None:
    worker = new_worker(tmp_path, config)
    events = told(worker, submit(config), command)
    kinds = [one.kind for one in events if isinstance(one, TrialEvent) and one.trial == "a"]
    assert kinds[0] == "started" and {"epoch", "completed"} <= set(kinds)
    assert told(worker, submit(config, "c"))[-1].kind == "completed", "it works on"


def vanish(data: Path) -> None:
    data.rename(data.with_name("away"))


def grow(data: Path) -> None:
    shutil.copy(data / "train" / "a" / "0.png", data / "train" / "a" / "more.png")


def other_weights(data: Path) -> None:
    weights = data.parent / "w.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))


def no_weights(data: Path) -> None:
    (data.parent / "w.safetensors").unlink()


@pytest.mark.parametrize("harm", [vanish, grow, other_weights, no_weights])
def test_files_that_change_fail_no_trial(
    tmp_path: Path, data: Path, config: TrialConfig, harm: Callable[[Path], None]
) -> None:
    """Every trial would meet them on this machine, and none elsewhere."""
    worker = new_worker(tmp_path, config)
    harm(data)
    with pytest.raises(NodeError, match=r"data|w\.safetensors"):
        told(worker, submit(config))


@pytest.mark.parametrize("harm", [vanish, grow, other_weights, no_weights])
def test_what_a_worker_has_loaded_stays_as_it_was(
    tmp_path: Path, data: Path, config: TrialConfig, harm: Callable[[Path], None]
) -> None:
    worker = new_worker(tmp_path, config)
    before = told(worker, submit(config))[-1].as_dict()
    harm(data)
    after = told(worker, submit(config, "b"))[-1].as_dict()
    assert (after["val_loss"], after["status"]) == (before["val_loss"], "completed")


def test_a_wrong_setting_of_a_trial_is_the_trials_fault(
    tmp_path: Path, data: Path, config: TrialConfig
) -> None:
    worker = new_worker(tmp_path, config)
    (failed,) = told(worker, submit(config, **{"data.root": str(data.with_name("nowhere"))}))
    assert failed.kind == "failed" and "nowhere" in failed.as_dict()["reason"]
