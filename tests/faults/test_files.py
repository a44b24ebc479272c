"""Files that are torn, altered or hostile: found out, said, and never quietly wrong."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search.study.folder import StudyDir
from search.study.journal import Journal
from tcpa_core.data.base import load_dataset
from tcpa_core.errors import CheckpointError, RecordError, StudyError, TcpaError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker
from tests.journals import recorded, write

EVERY = 100
"""Distance of the positions that are damaged."""


def damaged(path: Path) -> Iterator[str]:
    """Damage a file at every 100th position, once by cutting and once by turning bits over."""
    whole = path.read_bytes()
    for position in range(0, len(whole), EVERY):
        path.write_bytes(whole[:position])
        yield f"cut at {position}"
        altered = bytearray(whole)
        altered[position] ^= 0x5A
        path.write_bytes(bytes(altered))
        yield f"altered at {position}"
    path.write_bytes(whole)


def write_journal(path: Path, count: int = 40) -> list[dict[str, Any]]:
    journal = Journal(path)
    events = [
        write(journal, {"kind": "epoch", "trial": f"{i:05d}", "epoch": i, "val_loss": 0.1 * i})[0]
        for i in range(count)
    ]
    journal.close()
    return events


def test_a_damaged_journal_is_a_prefix_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write_journal(path)
    refused = prefixes = 0
    for how in damaged(path):
        try:
            found = recorded(path)
        except RecordError as err:
            assert "journal.jsonl:" in str(err), how
            refused += 1
        else:
            assert found == events[: len(found)], how
            prefixes += 1
    assert refused > 10
    assert prefixes > 10


def test_a_torn_journal_is_taken_up_where_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write_journal(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 7)
    journal = Journal(path)
    assert journal.dropped_bytes > 0
    (added,) = write(journal, {"kind": "finished"})
    journal.close()
    assert recorded(path) == [*events[:-1], added]
    assert added["n"] == len(events) - 1


def test_a_damaged_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    tensors = {"a": torch.arange(300.0), "b": torch.randn(4, 5)}
    save_checkpoint(path, tensors, {"epoch": 3})
    for how in damaged(path):
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
            pytest.fail(how)
    again, info = load_checkpoint(path)
    assert torch.equal(again["a"], tensors["a"])
    assert info["epoch"] == 3


def test_a_tensor_of_another_shape_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"a": torch.zeros(2, 3)}, {})
    path.write_bytes(path.read_bytes().replace(b"[2,3]", b"[3,2]"))
    with pytest.raises(CheckpointError, match="checksum differs"):
        load_checkpoint(path)


SETTINGS = {"methods": ["linear"], "train.epochs": 3, "train.batch_size": 64}


def drain(worker: Worker) -> list[dict[str, Any]]:
    events = []
    while not worker.idle:
        events += [event.as_dict() for event in worker.work()]
    return events


def test_a_trial_with_a_damaged_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    runs = []
    for damage in (False, True):
        folder = tmp_path / str(damage)
        worker = Worker(folder, tmp_path / "cache", "cpu")
        worker.take(Submit(trial="t", params=SETTINGS, until_epoch=2))
        first = drain(worker)
        last = folder / "checkpoints" / "t" / "last.safetensors"
        if damage:
            last.write_bytes(last.read_bytes()[:-9])
        again = Worker(folder, tmp_path / "cache", "cpu")
        again.take(Submit(trial="t", params=SETTINGS, until_epoch=3))
        runs.append((first, drain(again)))
    (_, whole), (_, anew) = runs
    assert "note" not in whole[0]
    assert "begins anew" in anew[0]["note"]
    assert [e["epoch"] for e in anew if e["kind"] == "epoch"] == [1, 2, 3]
    assert (tmp_path / "True/checkpoints/t/damaged.safetensors").exists()
    ends = [next(e for e in events if e["kind"] == "completed") for events in (whole, anew)]
    assert ends[0]["val_loss"] == ends[1]["val_loss"]


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    cfg = DataConfig(name="digits")
    whole = load_dataset(cfg, 8, cache_dir=tmp_path)
    pixels = {name: split.images.pixels.copy() for name, split in whole.splits.items()}
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 4096]
    assert files
    for path in files:
        content = path.read_bytes()
        for position in range(0, len(content), len(content) // 5):
            altered = bytearray(content)
            altered[position] ^= 0x5A
            path.write_bytes(bytes(altered))
            with pytest.warns(RuntimeWarning, match="damaged"):
                again = load_dataset(cfg, 8, cache_dir=tmp_path)
            for name, split in again.splits.items():
                np.testing.assert_array_equal(split.images.pixels, pixels[name])


class Bomb:
    """A pickle that would leave a trace if anybody opened it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_a_pickle_is_not_run_as_weights(tmp_path: Path, suffix: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, head=np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    elif suffix == ".pth":
        torch.save({"head.weight": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(TcpaError):
        load_backbone(BackboneConfig(name="vit_nano", weights=str(path)))
    assert not trace.exists()


def test_a_pickle_is_not_run_as_checkpoint(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "last.safetensors"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["..", "../other", "a/b", "/etc", "", "A", "a" * 65, "a\nb", "."])
def test_a_study_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    root = tmp_path / "studies"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "study.yaml").write_text("schema: 1\n")
    with pytest.raises(StudyError, match="no study|study name"):
        StudyDir.open(root, name)
    with pytest.raises(StudyError, match="study name"):
        StudyDir.check_free(root, name)


def test_a_second_driver_is_told_who_runs_the_study(make_study: Callable[[], StudyDir]) -> None:
    study = make_study()
    study.lock()
    with pytest.raises(StudyError, match=r"host \S+, pid \d+, since 20\d\d-"):
        StudyDir(study.path).lock()
    study.unlock()
    other = StudyDir(study.path)  # what a dead driver wrote does not keep the next one out
    other.lock()
    other.unlock()


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[[], StudyDir]:
    def make() -> StudyDir:
        folder = tmp_path / "studies" / "mine"
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(json.dumps({"schema": 1}))
        return StudyDir(folder)

    return make
