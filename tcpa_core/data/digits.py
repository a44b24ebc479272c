"""Handwritten digits of scikit-learn: 1,797 grey images of 8 x 8 pixels, 10 classes, no download.

Per class a quarter is the test split, always the same one; `data.val_fraction` of the rest is val
(by default train, val and test are 60, 15 and 25 %), drawn with `data.split_seed`.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

import numpy as np
from sklearn.datasets import load_digits

from tcpa_core.config import DataConfig
from tcpa_core.data.base import Listing, SplitListing, split_off
from tcpa_core.errors import ConfigError

TEST_FRACTION = 0.25
MAX_VALUE = 16  # pixel values are counts of set pixels in 4 x 4 blocks


def read(cfg: DataConfig) -> Listing:
    """List the digits.

    Raises:
        ConfigError: data.root is set.
    """
    if cfg.root is not None:
        raise ConfigError(
            f"data.root must be left out for data.name='digits', which comes with scikit-learn, "
            f"got {cfg.root!r}."
        )
    values, labels = load_digits(return_X_y=True)
    grey = np.rint(values * (255 / MAX_VALUE)).astype(np.uint8).reshape(-1, 8, 8, 1)
    rgb = np.repeat(grey, 3, axis=3)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in range(10):
        indices = np.flatnonzero(labels == label).tolist()
        rest, test = _divide(indices, TEST_FRACTION, "digits test")
        train, val = _divide(rest, cfg.val_fraction, f"val {cfg.split_seed}")
        for name, part in (("train", train), ("val", val), ("test", test)):
            parts[name] += part
    return Listing(
        root=None,
        class_names=tuple("0123456789"),
        class_source="scikit-learn",
        splits={
            name: SplitListing(
                keys=tuple(f"{i:04d}" for i in part),
                labels=tuple(labels[part].tolist()),
                source="scikit-learn digits",
                images=rgb[part],
            )
            for name, part in parts.items()
        },
    )


def _divide(indices: list[int], fraction: float, seed: str) -> tuple[list[int], list[int]]:
    first, second = split_off([f"{i:04d}" for i in indices], fraction, seed)
    return [indices[i] for i in first], [indices[i] for i in second]
