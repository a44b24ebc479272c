"""Pixels of each class in the masks of a split, remembered beside them in the cache."""

import json
from pathlib import Path

import numpy as np

from tcpa_core.data._cache import Images, ImageStore, write_atomic
from tcpa_core.data._masks import IGNORED

PART = 2**26
"""Pixels that are counted at a time."""


def class_pixels(masks: Images, cache: Path, num_classes: int) -> tuple[int, ...]:
    """Pixels of each class, and as the last number those without one.

    Args:
        masks: Of a split.
        cache: Cache folder: masks that it has are counted once.
    """
    total = np.sum([_counted(entry, cache) for entry in masks.entries], axis=0)
    return (*total[:num_classes].tolist(), int(total[IGNORED]))


def _counted(masks: ImageStore, cache: Path) -> list[int]:
    """Pixels of each value."""
    file = cache / "pixels" / f"{masks.key}.counts"
    known = _recalled(file)
    # A wrong count would only be shown, so that the sum is check enough.
    if known is not None and sum(known) == len(masks.pixels):
        return known
    found = np.zeros(IGNORED + 1, np.int64)
    for start in range(0, len(masks.pixels), PART):
        found += np.bincount(masks.pixels[start : start + PART], minlength=IGNORED + 1)
    counts: list[int] = found.tolist()
    if masks.is_kept and masks.key:
        try:
            write_atomic(file, json.dumps(counts).encode())
        except OSError:  # it is counted anew then
            pass
    return counts


def _recalled(file: Path) -> list[int] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(found, list) and len(found) == IGNORED + 1
    return found if is_ours and all(type(n) is int and n >= 0 for n in found) else None
