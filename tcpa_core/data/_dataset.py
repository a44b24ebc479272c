"""A data set as trials see it: decoded and resized for one image size."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tcpa_core.data._cache import Images
from tcpa_core.data._summary import DataSummary


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split."""

    images: Images
    """Resized, or stored to be enlarged, but not cropped, flipped or normalised."""
    labels: npt.NDArray[np.int64]
    """Class of each image [n], 0-based."""
    paths: tuple[str, ...]
    """Name of each image: path below the data set's folder, or a running number."""
    masks: Images | None = None
    """Of each image, in one plane, the class of every pixel or 255 (none): as `images` are stored
    in train, at the size of their files in val and test. None: an image has one class."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set, decoded and resized for one image size."""

    name: str
    """The kind: a file of tcpa_core/data."""
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    """"train", "val" and "test"."""
    fingerprint: str
    """Hash of names, labels and contents of all images and masks and of the class names."""
    img_size: int
    summary: DataSummary
