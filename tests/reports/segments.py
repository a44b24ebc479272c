"""What made-up trials took the pixels of made-up pictures for, beside their study's journal."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tcpa_core.record.files import CHECKPOINTS, REGIONS
from tcpa_core.record.regions import (
    IGNORED,
    WORST,
    Counts,
    Regions,
    Shown,
    SplitRegions,
    write_regions,
)
from tests.reports.studies import cell, epoch, final, planned, write

NAMES = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
         "Pedestrian", "Bicyclist")  # fmt: skip
SIZE = 72, 96
"""Height and width of a picture in pixels."""
SEGMENT = {"task.name": "segment", "segment.head": "setr_pup", "data.name": "segfolder",
           "data.root": "/sets/camvid-240"}  # fmt: skip
"""Settings of a trial that segments."""
MULTISCALE = 0.01
"""What several scales add to mIoU on test."""

Mask = np.ndarray[Any, np.dtype[np.uint8]]


def scene(number: int, num_classes: int) -> Mask:
    """The truth of a picture [H, W]: sky, street, things in it, and a strip without a label."""
    draw = np.random.default_rng([number, 7])
    mask = np.zeros(SIZE, np.uint8)
    horizon = int(draw.integers(20, 40))
    mask[horizon:] = min(3, num_classes - 1)
    for _ in range(12):
        label = int(draw.integers(1, num_classes))
        height, width = draw.integers(4, 30, 2)
        top, left = draw.integers(8, 60), draw.integers(0, 90)
        mask[top : top + height, left : left + width] = label
    mask[-3:] = IGNORED
    return mask


def guess(truth: Mask, skill: float, seed: int, num_classes: int) -> Mask:
    """A prediction: shifted a little, and with blocks of another class, fewer for more skill."""
    draw = np.random.default_rng(seed)
    found = np.roll(truth, draw.integers(-1, 2, 2), (0, 1))
    found = np.where(found == IGNORED, 3 % num_classes, found).astype(np.uint8)
    for _ in range(int(draw.poisson(30 * (1 - skill)))):
        top, left = draw.integers(0, SIZE[0] - 8), draw.integers(0, SIZE[1] - 8)
        found[top : top + 10, left : left + 10] = draw.integers(num_classes)
    return found


def split_of(pairs: Sequence[tuple[Mask, Mask]], num_classes: int, folder: str) -> SplitRegions:
    """What is counted of truths and predictions."""
    counts = np.stack([confusion(truth, found, num_classes) for truth, found in pairs])
    return SplitRegions(
        keys=[f"{folder}/{n:05d}.png" for n in range(len(pairs))],
        hits=np.ascontiguousarray(counts.diagonal(axis1=1, axis2=2)),
        labelled=counts.sum(2),
        predicted=counts.sum(1),
        confusion=counts.sum(0),
    )


def confusion(truth: Mask, found: Mask, num_classes: int) -> Counts:
    """Pixels by class (row) and by what they were taken for [C, C]."""
    known = truth != IGNORED
    pairs = truth[known].astype(np.int64) * num_classes + found[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def segmented(
    skill: float, seed: int, names: Sequence[str] = NAMES, num_pictures: int = 20
) -> Regions:
    """A trial's; the pictures are the same for all trials."""
    splits, pictures = {}, {}
    for place, folder in enumerate(("val", "test")):
        truths = [scene(1000 * place + n, len(names)) for n in range(num_pictures)]
        found = [guess(truth, skill, 100 * seed + n, len(names)) for n, truth in enumerate(truths)]
        splits[folder] = split_of(list(zip(truths, found, strict=True)), len(names), folder)
        if folder == "test":
            worst = np.argsort(splits[folder].picture_iou)[:WORST].tolist()
            pictures = {n: Shown(jpeg(n, truths[n]), png(truths[n]), png(found[n])) for n in worst}
    return Regions(tuple(names), splits, pictures)


def jpeg(number: int, truth: Mask) -> bytes:
    """A picture of a scene."""
    shades = np.random.default_rng(number).integers(40, 220, (256, 3))
    pixels = shades[truth] + np.random.default_rng(number).normal(0, 12, (*SIZE, 3))
    return _file(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG")


def png(mask: Mask) -> bytes:
    """A mask as a file with some palette."""
    image = Image.fromarray(mask)
    image.putpalette([n for n in range(256) for _ in range(3)])
    return _file(image, "PNG")


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def ended(number: int, found: Regions, *, multiscale: bool = True) -> dict[str, Any]:
    """The final event of a trial that found this."""
    val, test = (found.splits[name].scores for name in ("val", "test"))
    more = {"test_miou_multiscale": test.miou + MULTISCALE} if multiscale else {}
    return final(
        number, "completed", val.accuracy, val_miou=val.miou, val_mean_accuracy=val.mean_accuracy,
        test_accuracy=test.accuracy, test_miou=test.miou, test_mean_accuracy=test.mean_accuracy,
        **more,
    )  # fmt: skip


def keep(study: Path, found: Sequence[Regions | None]) -> None:
    """Put files beside the checkpoints of trials 0, 1, ...; None: it has none."""
    for number, one in enumerate(found):
        if one is not None:
            path = study / CHECKPOINTS / f"{number:05d}" / REGIONS
            path.parent.mkdir(parents=True, exist_ok=True)
            write_regions(path, one)


def segment_study(
    folder: Path,
    skills: Mapping[str, float],
    seeds: int = 3,
    names: Sequence[str] = NAMES,
    num_pictures: int = 20,
    **settings: Any,
) -> Path:
    """An ablation of methods that segment, each seed tested, with all files.

    Args:
        skills: By method.
        settings: Further ones of every trial, by dotted path with __ for the dot.

    Returns:
        Folder of the study.
    """
    events, kept = [], []
    for order, (method, skill) in enumerate(skills.items()):
        for seed in range(seeds):
            number = order * seeds + seed
            found = segmented(skill, number, names, num_pictures)
            flat = {key.replace(".", "__"): value for key, value in SEGMENT.items()} | settings
            at = [cell("methods", method, order, order == 0)]
            events.append(planned(number, seed=seed, cells=at, methods=[method], **flat))
            last = found.splits["val"].scores
            for at_epoch in (1, 2):
                share = at_epoch / 2
                events.append(epoch(number, at_epoch, last.accuracy * share,
                                    val_miou=last.miou * share,
                                    val_mean_accuracy=last.mean_accuracy * share))  # fmt: skip
            events.append(ended(number, found))
            kept.append(found)
    space = {"name": folder.name, "base": dict(SEGMENT),
             "objective": {"metric": "val_miou", "goal": "maximize"},
             "ablation": {"design": "one_factor", "seeds": list(range(seeds))}}  # fmt: skip
    study = write(folder, events, "ablation", space)
    keep(study, kept)
    return study
