"""CIFAR's pickles: pictures of 32 x 32 pixels as rows of bytes, red, green and blue planes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tcpa_core.data._listing import SplitListing
from tcpa_core.data._official import Parts
from tcpa_core.data._pickles import names_of, numbers_of, pictures_of, read_values, value_of
from tcpa_core.errors import DataError

SIDE = 32


def cifar_parts(
    base: Path, *, train: Sequence[str], test: str, meta: str, labels: str, names: str
) -> Parts:
    """Read the files of a CIFAR.

    Args:
        labels: Key of the labels in each file.
        names: Key of the class names in the file `meta`.

    Raises:
        DataError: A file is missing or damaged.
    """
    held = read_values(base / meta)
    return Parts(
        root=base,
        class_names=names_of(base / meta, value_of(base / meta, held, names)),
        class_source=meta,
        splits={
            "train": _split(base, train, labels),
            "test": _split(base, [test], labels),
        },
    )


def _split(base: Path, files: Sequence[str], labels: str) -> SplitListing:
    keys: list[str] = []
    classes: list[int] = []
    rows: list[npt.NDArray[np.uint8]] = []
    for file in files:
        held = read_values(base / file)
        found = pictures_of(base / file, value_of(base / file, held, "data"), 3 * SIDE * SIDE)
        numbers = numbers_of(base / file, value_of(base / file, held, labels))
        if len(numbers) != len(found):
            raise DataError(
                f"{base / file} has {len(found)} pictures and {len(numbers)} labels; restore it."
            )
        keys += [f"{file}/{i:05d}" for i in range(len(found))]
        classes += numbers
        rows.extend(found)  # views: what was read is there once
    return SplitListing(
        keys=tuple(keys),
        labels=tuple(classes),
        source=" and ".join(files) if len(files) < 3 else f"{files[0]} to {files[-1]}",
        read=lambda index: np.ascontiguousarray(
            rows[index].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        ),
        files=tuple(key.partition("/")[0] for key in keys),
    )
