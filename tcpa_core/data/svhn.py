"""SVHN's cropped digits: train_32x32.mat and test_32x32.mat, which torchvision's SVHN reads too.

`data.root` is the folder of the two files. Label 10 is the digit 0. There is no val:
data.val_fraction of each class of train is drawn, or with data.split=hta the last fifth of train is
taken. extra_32x32.mat is not read.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
NIPS workshop, 2011.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tcpa_core.data._listing import SplitListing
from tcpa_core.data._mat import numbers, read_mat, shapes_of
from tcpa_core.data._official import OfficialKind, Parts
from tcpa_core.errors import DataError


class _Pictures:
    """Pixels of a file [32, 32, 3, n], loaded when the first one is asked for: they are packed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = Lock()
        self.pixels: npt.NDArray[Any] | None = None

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        with self.lock:
            if self.pixels is None:
                found = read_mat(self.path, ["X"])["X"]
                if getattr(found, "dtype", None) != np.uint8:
                    raise DataError(f"{self.path}: X must be an array of bytes; restore the file.")
                self.pixels = found
        return np.ascontiguousarray(self.pixels[..., index])


def _parts(base: Path) -> Parts:
    return Parts(
        root=base,
        class_names=tuple("0123456789"),
        class_source="SVHN",
        splits={
            "train": _split(base / "train_32x32.mat"),
            "test": _split(base / "test_32x32.mat"),
        },
    )


def _split(path: Path) -> SplitListing:
    shape = shapes_of(path, ["X"])["X"]
    labels = [0 if label == 10 else label for label in numbers(path, read_mat(path, ["y"])["y"])]
    if shape != (32, 32, 3, len(labels)):
        raise DataError(
            f"{path}: X must be of shape (32, 32, 3, n) for n labels, got {shape} and "
            f"{len(labels)} labels; restore the file."
        )
    return SplitListing(
        keys=tuple(f"{path.stem.partition('_')[0]}/{i:06d}" for i in range(len(labels))),
        labels=tuple(labels),
        source=path.name,
        read=_Pictures(path).read,
        files=(path.name,) * len(labels),
    )


_KIND = OfficialKind(
    key="svhn",
    places=("", "svhn", "SVHN"),
    marks=("train_32x32.mat", "test_32x32.mat"),
    parts=_parts,
    hta="first_80",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
