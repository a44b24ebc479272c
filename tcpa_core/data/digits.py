"""Handwritten digits of scikit-learn: 1,797 grey images of 8 x 8 pixels, 10 classes, no download.

Per class a quarter is the test split, always the same one; `data.val_fraction` of the rest is val
(by default train, val and test are 60, 15 and 25 %), drawn with `data.split_seed`.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

import numpy as np

from tcpa_core.data.base import Listing, SplitListing, draw_val, split_off
from tcpa_core.errors import ConfigError
from tcpa_core.settings import DataConfig

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
    from sklearn.datasets import load_digits  # takes longer to import than all else here

    values, labels = load_digits(return_X_y=True)
    grey = np.rint(values * (255 / MAX_VALUE)).astype(np.uint8).reshape(-1, 8, 8, 1)
    rgb = np.repeat(grey, 3, axis=3)
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for label in range(10):
        indices = np.flatnonzero(labels == label).tolist()
        rest, test = split_off(_names(indices), TEST_FRACTION, "digits test")
        parts["train"] += [indices[i] for i in rest]
        parts["test"] += [indices[i] for i in test]
    known = parts["train"]
    val = set(draw_val(_names(known), labels[known].tolist(), cfg))
    parts["val"] = [index for i, index in enumerate(known) if i in val]
    parts["train"] = [index for i, index in enumerate(known) if i not in val]
    return Listing(
        root=None,
        class_names=tuple("0123456789"),
        class_source="scikit-learn",
        splits={
            name: SplitListing(
                keys=tuple(_names(part)),
                labels=tuple(labels[part].tolist()),
                source="scikit-learn digits",
                read=rgb[part].__getitem__,
            )
            for name, part in parts.items()
        },
        drawn=True,
    )


def _names(indices: list[int]) -> list[str]:
    return [f"{i:04d}" for i in indices]
