"""What a segmentation found on val and test: a small file beside a trial's checkpoints.

A worker writes it when it scores the trial on the test split, of the same state and in the same
pass. It has counts of pixels for each picture, and the worst pictures of test themselves.
"""

# Axes: N pictures of a split, C classes.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tcpa_core.record.tensor_file import (
    Array,
    joined,
    packed_names,
    parted,
    read_tensors,
    unpacked_names,
    write_tensors,
)

SCHEMA = 1
IGNORED = 255
"""Value of a mask's pixels that are not labelled: nothing counts there."""
WORST = 12
"""Pictures of test that are kept: those of the lowest intersection over union."""
SIDE = 160
"""Longest side of such a picture in pixels."""
_PICTURES, _SIZES = "pictures", "picture_sizes"
"""The files of all pictures; the number in the split and the bytes of each of its files [n, 4]."""
_PARTS = ("hits", "labelled", "predicted", "confusion")

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def iou_of(hits: Counts, labelled: Counts, predicted: Counts) -> Shares:
    """Intersection over union of each class, as of `SplitRegions`; NaN where it occurs neither in
    truth nor in prediction."""
    return _share(hits, labelled + predicted - hits)


def picture_iou(confusion: Counts) -> float:
    """Mean intersection over union of the classes that occur in a picture, by its confusion matrix
    [C, C]; NaN: nothing in it is labelled."""
    return _mean(iou_of(confusion.diagonal(), confusion.sum(1), confusion.sum(0)))


class Shown(NamedTuple):
    """A picture of test, each with its longest side of SIDE pixels."""

    picture: bytes
    """JPEG."""
    truth: bytes
    """PNG with a palette; its pixels are classes, IGNORED where none is labelled."""
    prediction: bytes
    """Same, everywhere a class."""


@dataclass(frozen=True, slots=True, eq=False)
class SplitRegions:
    """Pixels of the pictures of one split, at the size of their masks; those that are not labelled
    count nowhere."""

    keys: Sequence[str]
    """Name of each picture [N], as of `tcpa_core.data`."""
    hits: Counts
    """Pixels of a class that were taken for it, int64 [N, C]."""
    labelled: Counts
    """Pixels of a class [N, C]."""
    predicted: Counts
    """Pixels that were taken for a class [N, C]."""
    confusion: Counts
    """Of all pictures: pixels by class (row) and by what they were taken for, int64 [C, C]."""

    @property
    def class_iou(self) -> Shares:
        """Intersection over union of each class over all pictures [C]; NaN: it does not occur."""
        return iou_of(self.hits.sum(0), self.labelled.sum(0), self.predicted.sum(0))

    @property
    def picture_iou(self) -> Shares:
        """Of each picture, the mean over the classes that occur in it [N]; NaN: nothing in it is
        labelled."""
        return np.array([_mean(row) for row in iou_of(self.hits, self.labelled, self.predicted)])

    @property
    def scores(self) -> "MapScores":
        """What the confusion matrix says."""
        return MapScores.of(self.confusion)


class MapScores(NamedTuple):
    """Of a confusion matrix; each in [0, 1]. As mmsegmentation counts them
    (`mmseg/core/evaluation/metrics.py`)."""

    miou: float
    """Mean intersection over union of the classes that occur in truth or prediction."""
    mean_accuracy: float
    """Mean share of a class's pixels that are found, over the classes that occur in truth."""
    accuracy: float
    """Share of all labelled pixels that are right."""

    @classmethod
    def of(cls, confusion: Counts) -> "MapScores":
        """The scores of pixels by class (row) and by what they were taken for [C, C]; 0 where none
        is labelled."""
        hits, labelled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        if not labelled.any():
            return cls(0.0, 0.0, 0.0)
        iou, recall = iou_of(hits, labelled, predicted), _share(hits, labelled)
        return cls(_mean(iou), _mean(recall), int(hits.sum()) / int(labelled.sum()))


def _share(part: Counts, whole: Counts) -> Shares:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(shares: Shares) -> float:
    """Of those that are numbers; NaN if none is."""
    found = shares[~np.isnan(shares)]
    return float(found.mean()) if len(found) else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What the selected state of a trial found on val and test."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitRegions]
    """"val" and "test"."""
    pictures: Mapping[int, Shown]
    """The worst pictures of test, the worst first, by number in that split."""


def write_regions(path: Path, found: Regions) -> None:
    """Write the file as a whole.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    tensors: dict[str, Array] = {}
    for name, split in found.splits.items():
        tensors[f"{name}.keys"] = packed_names(split.keys)
        tensors |= {f"{name}.{part}": getattr(split, part) for part in _PARTS}
    tensors[_PICTURES] = joined([file for shown in found.pictures.values() for file in shown])
    sizes = [(number, *map(len, shown)) for number, shown in found.pictures.items()]
    tensors[_SIZES] = np.array(sizes, np.int64).reshape(-1, 4)
    write_tensors(path, tensors, {"schema": SCHEMA, "class_names": found.class_names})


def read_regions(path: Path) -> Regions:
    """Read such a file.

    Raises:
        FileNotFoundError: There is none.
        RecordError: It is torn, altered or of another version.
    """
    return read_tensors(path, SCHEMA, _of_tensors)


def _of_tensors(tensors: Mapping[str, Array], class_names: tuple[str, ...]) -> Regions:
    # A file has no order of its own.
    splits = sorted({name.partition(".")[0] for name in tensors if "." in name})
    rows = tensors[_SIZES].tolist()
    files = iter(parted(tensors[_PICTURES], [size for row in rows for size in row[1:]]))
    pictures = {row[0]: Shown(next(files), next(files), next(files)) for row in rows}
    found = {name: _split(tensors, name, len(class_names)) for name in splits}
    return Regions(class_names, found, pictures)


def _split(tensors: Mapping[str, Array], name: str, num_classes: int) -> SplitRegions:
    keys = unpacked_names(tensors[f"{name}.keys"], name)
    parts = [tensors[f"{name}.{part}"] for part in _PARTS]
    shapes = [part.shape for part in parts]
    if shapes != [*[(len(keys), num_classes)] * 3, (num_classes, num_classes)]:
        raise ValueError(f"the parts of {name} have different lengths")
    if any(part.dtype != np.int64 or (part < 0).any() for part in parts):
        raise ValueError(f"{name} has other numbers than counts of pixels")
    found = SplitRegions(keys, *parts)
    of_all = found.confusion.diagonal(), found.confusion.sum(1), found.confusion.sum(0)
    if not all((mine.sum(0) == whole).all() for mine, whole in zip(parts, of_all, strict=False)):
        raise ValueError(f"the pictures of {name} do not add up to its confusion matrix")
    return found
