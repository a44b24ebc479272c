"""What a trial took each image of val and test for: a small file beside its checkpoints.

A worker writes it when it scores the trial on the test split, of the same state and in the same
pass.
"""

# Axes: N images of a split, k classes kept of each.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
MOST_CLASSES = 5
"""Classes that are kept of an image, at most."""
_PICTURES, _SIZES = "pictures", "picture_sizes"
"""The files of all pictures, and the number in the split and the bytes of each [n, 2]."""


@dataclass(frozen=True, slots=True, eq=False)
class SplitPredictions:
    """What the images of one split were taken for."""

    keys: Sequence[str]
    """Name of each image [N], as of `tcpa_core.data`: its path below the data set's folder, or a
    running number."""
    labels: Array
    """Class of each image, int16 or int32 [N]."""
    classes: Array
    """The predicted class, as accuracy counts it, then those of the next highest probabilities;
    integers as of `labels` [N, k]."""
    probabilities: Array
    """Softmax of these classes, float32 [N, k]."""
    of_label: Array
    """Softmax of the label's class, float32 [N]."""

    @property
    def accuracy(self) -> float:
        """Share of the images whose predicted class is the label."""
        return int((self.classes[:, 0] == self.labels).sum()) / len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the images of val and test were taken for by the selected state of a trial."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitPredictions]
    """"test" and, except of trials that an older version has trained, "val"."""
    pictures: Mapping[int, bytes]
    """JPEG files of some images of test that were mistaken, by number in that split."""


def write_predictions(path: Path, found: Predictions) -> None:
    """Write the file as a whole.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    tensors: dict[str, Array] = {}
    for name, split in found.splits.items():
        tensors |= {
            f"{name}.keys": packed_names(split.keys),
            f"{name}.labels": split.labels,
            f"{name}.classes": split.classes,
            f"{name}.probabilities": split.probabilities,
            f"{name}.of_label": split.of_label,
        }
    tensors[_PICTURES] = joined(list(found.pictures.values()))
    sizes = [(index, len(picture)) for index, picture in found.pictures.items()]
    tensors[_SIZES] = np.array(sizes, np.int64).reshape(-1, 2)
    write_tensors(path, tensors, {"schema": SCHEMA, "class_names": found.class_names})


def read_predictions(path: Path) -> Predictions:
    """Read such a file.

    Raises:
        FileNotFoundError: There is none.
        RecordError: It is torn, altered or of another version.
    """
    return read_tensors(path, SCHEMA, _of_tensors)


def _of_tensors(tensors: Mapping[str, Array], class_names: tuple[str, ...]) -> Predictions:
    # A file has no order of its own.
    splits = sorted({name.partition(".")[0] for name in tensors if "." in name})
    numbers, sizes = tensors[_SIZES].T.tolist()
    pictures = dict(zip(numbers, parted(tensors[_PICTURES], sizes), strict=True))
    found = {name: _split(tensors, name, len(class_names)) for name in splits}
    return Predictions(class_names, found, pictures)


def _split(tensors: Mapping[str, Array], name: str, num_classes: int) -> SplitPredictions:
    keys = unpacked_names(tensors[f"{name}.keys"], name)
    labels, classes, probabilities, of_label = (
        tensors[f"{name}.{part}"] for part in ("labels", "classes", "probabilities", "of_label")
    )
    shapes = (labels.shape, of_label.shape, classes.shape[:1], probabilities.shape[:1])
    if set(shapes) != {(len(keys),)} or classes.shape != probabilities.shape or not classes.size:
        raise ValueError(f"the parts of {name} have different lengths")
    for numbers in (labels, classes):
        if numbers.dtype.kind != "i" or numbers.min() < 0 or numbers.max() >= num_classes:
            raise ValueError(f"{name} has other classes than its {num_classes} names")
    return SplitPredictions(keys, labels, classes, probabilities, of_label)
