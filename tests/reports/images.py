"""What made-up trials took made-up images for, beside the journal of `tests.reports.studies`."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tcpa_core.record.files import CHECKPOINTS, PREDICTIONS
from tcpa_core.record.predictions import (
    MOST_CLASSES,
    Array,
    Predictions,
    SplitPredictions,
    write_predictions,
)
from tests.reports.studies import cell, final, planned, write


def split(labels: Array, logits: Array, folder: str = "test") -> SplitPredictions:
    """What logits [N, C] say of images with these labels."""
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    classes = np.argsort(-chances, axis=1, kind="stable")[:, :MOST_CLASSES]
    return SplitPredictions(
        keys=[f"{folder}/{label}/{n:05d}.png" for n, label in enumerate(labels)],
        labels=labels.astype(np.int16),
        classes=classes.astype(np.int16),
        probabilities=np.take_along_axis(chances, classes, 1).astype(np.float32),
        of_label=chances[np.arange(len(labels)), labels].astype(np.float32),
    )


def predicted(
    num_images: int, num_classes: int, skill: float, seed: int, pictures: bool = True
) -> Predictions:
    """A trial's; the images and what is hard in them are the same for all seeds."""
    names = tuple(f"class {n}" for n in range(num_classes))
    splits = {}
    for number, name in enumerate(("test", "val")):
        images = np.random.default_rng(number)
        labels = images.integers(num_classes, size=num_images // (number + 1))
        logits = images.normal(size=(len(labels), num_classes))
        logits += np.random.default_rng([seed, number]).normal(size=logits.shape)
        logits[np.arange(len(labels)), labels] += skill
        splits[name] = split(labels, logits, name)
    test = splits["test"]
    wrong = np.flatnonzero(test.classes[:, 0] != test.labels)
    worst = wrong[np.argsort(test.of_label[wrong])][:48] if pictures else ()
    return Predictions(names, splits, {int(n): picture(int(n)) for n in worst})


def picture(number: int) -> bytes:
    """A small JPEG file."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG", quality=80)
    return file.getvalue()


def ablation(
    folder: Path,
    levels: dict[str, float],
    seeds: int = 2,
    num_images: int = 400,
    num_classes: int = 10,
) -> Path:
    """An ablation whose levels have a skill, each seed tested, with all files.

    Returns:
        Folder of the study.
    """  # fmt: skip
    events, found = [], []
    for order, (level, skill) in enumerate(levels.items()):
        for seed in range(seeds):
            number = order * seeds + seed
            one = predicted(num_images, num_classes, skill, number)
            at = [cell("components", level, order, order == 0)]
            events += [planned(number, seed=seed, cells=at, data__name="digits")]
            events += [ended(number, one)]
            found.append(one)
    study = write(folder, events, "ablation")
    keep(study, found)
    return study


def ended(number: int, one: Predictions) -> dict[str, object]:
    """The final event of a trial that took the images for this."""
    val = one.splits["val"].accuracy if "val" in one.splits else 0.5
    return final(number, "completed", val, test_accuracy=one.splits["test"].accuracy)


def keep(study: Path, found: Sequence[Predictions | None]) -> None:
    """Put files beside the checkpoints of trials 0, 1, ...; None: it has none."""
    for number, one in enumerate(found):
        if one is not None:
            write_predictions(study / CHECKPOINTS / f"{number:05d}" / PREDICTIONS, one)
