"""What tested trials took each image for: the file beside their checkpoints."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.data.base import load_dataset
from tcpa_core.errors import RecordError, StorageError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record import events as of_journal
from tcpa_core.record.events import Ended, Event, Notice
from tcpa_core.record.files import LAST, PREDICTIONS
from tcpa_core.record.predictions import (
    Predictions,
    SplitPredictions,
    read_predictions,
    write_predictions,
)
from tcpa_core.record.values import TrialResult
from tcpa_core.training import commands, predicted, saved_predictions
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.commands import Submit
from tcpa_core.training.pack import Pack
from tcpa_core.training.predicted import MOST_PICTURES, SWITCH, Predicted
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.saved_member import VAL_CLASSES
from tcpa_core.training.trained import load_trained
from tcpa_core.training.trial_data import load_trial_data
from tcpa_core.training.worker import Worker

SETTINGS = {
    "train.epochs": 2, "train.batch_size": 50, "optim.lr": 0.03, "data.size_per_class": 10,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"methods": ["linear"]},
    "vpt": {"methods": ["vpt"], "vpt.num_prompts": 2},
    "vpt more": {"methods": ["vpt"], "vpt.num_prompts": 3, "seed": 1},
}
"""The last two train together."""


def config(name: str) -> TrialConfig:
    return TrialConfig.from_flat({**SETTINGS, **METHODS[name]})


def drained(worker: Worker) -> list[Event]:
    events: list[Event] = []
    while not worker.idle:
        events += worker.work()
    return events


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, list[Event]]:
    """Folder of checkpoints of a worker that scores all three at their ends, and what it told."""
    folder = tmp_path_factory.mktemp("packed")
    worker = Worker(folder, cache, "cpu")
    for name in METHODS:
        flat = config(name).flat()
        worker.take(Submit(trial=name, params=flat, until_epoch=2, test_at_end=True))
    return folder / "checkpoints", drained(worker)


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, TrialResult]:
    """The same of one trial alone."""
    folder = tmp_path_factory.mktemp("solo")
    return folder, run_trial(config("vpt"), folder=folder, cache_dir=cache)


def check_accuracies(found: Predictions, result: TrialResult) -> None:
    assert found.splits["test"].accuracy == result.test_accuracy
    assert found.splits["val"].accuracy == result.val_accuracy


def test_accuracies_are_those_of_the_journal(
    packed: tuple[Path, list[Event]], solo: tuple[Path, TrialResult]
) -> None:
    folder, events = packed
    ended = [event for event in events if isinstance(event, Ended)]
    assert {event.trial for event in ended} == set(METHODS)
    for event in ended:
        check_accuracies(read_predictions(folder / event.trial / PREDICTIONS), event.result)
    check_accuracies(read_predictions(solo[0] / PREDICTIONS), solo[1])


def test_a_pack_and_a_trial_alone_leave_the_same(
    packed: tuple[Path, list[Event]], solo: tuple[Path, TrialResult]
) -> None:
    one = read_predictions(packed[0] / "vpt" / PREDICTIONS)
    other = read_predictions(solo[0] / PREDICTIONS)
    assert one.class_names == other.class_names and set(one.splits) == {"val", "test"}
    for name in one.splits:
        a, b = one.splits[name], other.splits[name]
        assert a.keys == b.keys and np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.classes[:, 0], b.classes[:, 0])
        for part in ("probabilities", "of_label"):
            np.testing.assert_allclose(getattr(a, part), getattr(b, part), atol=1e-4)


def test_they_are_what_the_trained_model_says(solo: tuple[Path, TrialResult], cache: Path) -> None:
    model = load_trained(solo[0] / "best.safetensors")
    backbone = load_backbone(config("vpt").backbone)
    data = load_trial_data(config("vpt"), backbone, cache_dir=cache).test
    with torch.no_grad():
        expected = model(data.batch(slice(0, 40))).softmax(-1)
    found = read_predictions(solo[0] / PREDICTIONS).splits["test"]
    assert tuple(found.keys) == data.keys and np.array_equal(found.labels, data.labels)
    top = expected.topk(5)
    assert np.array_equal(found.classes[:40], top.indices)
    np.testing.assert_allclose(found.probabilities[:40], top.values, atol=1e-5)
    of_label = expected.gather(1, data.labels[:40].view(-1, 1)).flatten()
    np.testing.assert_allclose(found.of_label[:40], of_label, atol=1e-5)


def test_a_trial_that_is_scored_later_leaves_them_too(tmp_path: Path, cache: Path) -> None:
    worker = Worker(tmp_path, cache, "cpu")
    flat = config("vpt").flat()
    worker.take(Submit(trial="a", params=flat, until_epoch=2))
    ended = drained(worker)[-1]
    path = tmp_path / "checkpoints" / "a" / PREDICTIONS
    assert isinstance(ended, Ended) and not path.exists(), "the test split is not read yet"
    worker.take(commands.Test(trial="a", params=flat))
    (tested,) = drained(worker)
    found = read_predictions(path)
    assert isinstance(tested, of_journal.Tested)
    assert found.splits["test"].accuracy == tested.test_accuracy
    assert found.splits["val"].accuracy == ended.result.val_accuracy
    path.unlink()
    last = path.with_name(LAST)
    tensors, info = load_checkpoint(last)
    del tensors[VAL_CLASSES], info["schema"]  # as an older version wrote it
    save_checkpoint(last, tensors, info)
    worker.take(commands.Test(trial="a", params=flat))
    assert drained(worker) == [tested]
    assert set(read_predictions(path).splits) == {"test"}
    path.unlink()
    result = run_trial(info["config"], folder=path.parent, cache_dir=cache, recorded=True)
    assert result.test_accuracy == read_predictions(path).splits["test"].accuracy


def test_pictures_of_mistakes_are_small_and_can_be_left_out(
    packed: tuple[Path, list[Event]], solo: tuple[Path, TrialResult], cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = read_predictions(packed[0] / "linear" / PREDICTIONS)
    test = found.splits["test"]
    mistakes = np.flatnonzero(test.classes[:, 0] != test.labels)
    assert len(found.pictures) == min(MOST_PICTURES, len(mistakes)) > 0
    kept = sorted(test.of_label[n] for n in found.pictures)
    assert kept == sorted(test.of_label[mistakes])[: len(kept)]
    data = load_dataset(config("linear").data, 32, cache_dir=cache).splits["test"]
    for n, picture in found.pictures.items():
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "JPEG" and max(image.size) <= predicted.SIDE
            pixels = np.asarray(image.convert("RGB"), dtype=float)
        assert np.abs(pixels - data.images.image(n)).mean() < 12
    assert sum(map(len, found.pictures.values())) < 100_000
    monkeypatch.setenv(SWITCH, "0")
    run_trial(config("linear"), folder=tmp_path, cache_dir=cache)
    assert not read_predictions(tmp_path / PREDICTIONS).pictures


@pytest.mark.parametrize("of", ["disk", "code"])
def test_a_score_counts_without_them(
    of: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *args: Any) -> None:
        raise StorageError.of(path, OSError(28, "No space left on device")) from OSError(28, "full")

    def wrong(*args: Any) -> Any:
        raise RuntimeError("no such kernel")

    if of == "disk":
        monkeypatch.setattr(saved_predictions, "write_predictions", full)
    else:
        monkeypatch.setattr(Pack, "predictions", wrong)
    worker = Worker(tmp_path, cache, "cpu")
    flat = config("linear").flat()
    worker.take(Submit(trial="a", params=flat, until_epoch=2, test_at_end=True))
    ended, notice = drained(worker)[-2:]
    assert isinstance(ended, Ended) and ended.result.status == "completed"
    assert ended.result.test_accuracy is not None
    assert isinstance(notice, Notice) and "trial a is scored, but" in notice.text
    assert not (tmp_path / "checkpoints" / "a" / PREDICTIONS).exists()
    result = run_trial(config("linear"), folder=tmp_path / "solo", cache_dir=cache)
    assert result.test_accuracy == ended.result.test_accuracy
    assert "is not kept" in result.warnings[-1]


class Source:
    """A split of so many images."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.keys = tuple(str(n) for n in range(len(labels)))


@pytest.mark.parametrize("classes", [2, 3, 5, 200, 40_000])
def test_any_number_of_classes(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "ROWS", 3 * classes)  # several parts
    torch.manual_seed(0)
    logits = torch.randn(2, 7, classes)
    labels = torch.randint(classes, (7,))
    found = Predicted(Source(labels), classes)  # type: ignore[arg-type]
    for turn in (slice(0, 4), slice(4, 7)):
        found.take(turn, logits[:, turn], logits[:, turn].argmax(-1))
    for m, one in enumerate(found.of_members()):
        kept = min(5, classes)
        order = logits[m].argsort(-1, descending=True)[:, :kept]
        assert np.array_equal(one.classes, order) and one.probabilities.shape == (7, kept)
        expected = logits[m].softmax(-1)
        np.testing.assert_allclose(one.probabilities, expected.gather(1, order), rtol=1e-5)
        np.testing.assert_allclose(one.of_label, expected[range(7), labels], rtol=1e-5)


def test_equal_logits_leave_the_predicted_class_first() -> None:
    logits = torch.tensor([[[1.0, 2.0, 2.0, 2.0], [-torch.inf] * 4, [torch.nan] * 4]])
    labels = torch.tensor([1, 0, 3])
    for first in ([1, 0, 0], [3, 3, 2]):
        found = Predicted(Source(labels), 4)  # type: ignore[arg-type]
        found.take(slice(None), logits, torch.tensor([first]))
        (one,) = found.of_members()
        assert one.classes[:, 0].tolist() == first
        assert all(sorted(row) == [0, 1, 2, 3] for row in one.classes.tolist())


def small(**changed: Any) -> Predictions:
    parts: dict[str, Any] = {
        "keys": ["a/1.png", "b/2.png"],
        "labels": np.array([0, 1], np.int16),
        "classes": np.array([[0, 1], [0, 1]], np.int16),
        "probabilities": np.array([[0.9, 0.1], [0.6, 0.4]], np.float32),
        "of_label": np.array([0.9, 0.4], np.float32),
    }
    return Predictions(("a", "b"), {"test": SplitPredictions(**parts | changed)}, {1: b"jpeg"})


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [flipped, lambda data: data[:-3], lambda data: data[:5], lambda data: b"{}" * 20]
)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    write_predictions(path, small())
    found = read_predictions(path)
    assert found.splits["test"].keys == ["a/1.png", "b/2.png"] and found.pictures == {1: b"jpeg"}
    assert [file.name for file in tmp_path.iterdir()] == [PREDICTIONS]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError, match=PREDICTIONS):
        read_predictions(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.array([0, 2], np.int16)},
        {"classes": np.array([[0, 1], [-1, 1]], np.int16)},
        {"keys": ["a"]},
        {"keys": [1, 2]},
        {"probabilities": np.ones((2, 1), np.float32)},
        {"classes": np.ones((2, 0), np.int16), "probabilities": np.ones((2, 0), np.float32)},
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    write_predictions(tmp_path / "p", small(**changed))
    with pytest.raises(RecordError, match="cannot be read"):
        read_predictions(tmp_path / "p")
