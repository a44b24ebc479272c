"""Literal loops over the pixels of masks: what the counts of a segmentation have to be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tcpa_core.record.regions import IGNORED, SplitRegions

Mask = npt.NDArray[Any]


def confusion(truths: Sequence[Mask], found: Sequence[Mask], classes: int) -> Mask:
    """Pixels by class and by what they are taken for, pixel by pixel."""
    table = np.zeros((classes, classes), np.int64)
    for truth, one in zip(truths, found, strict=True):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                if truth[row, column] != IGNORED:
                    table[truth[row, column], one[row, column]] += 1
    return table


def counted(truths: Sequence[Mask], found: Sequence[Mask], classes: int) -> SplitRegions:
    """The counts of a split with such masks and predictions."""
    tables = [confusion([t], [f], classes) for t, f in zip(truths, found, strict=True)]
    return SplitRegions(
        keys=[f"{n}.png" for n in range(len(truths))],
        hits=np.stack([table.diagonal() for table in tables]),
        labelled=np.stack([table.sum(1) for table in tables]),
        predicted=np.stack([table.sum(0) for table in tables]),
        confusion=np.sum(tables, axis=0),
    )


def slow_scores(
    truths: Sequence[Mask], found: Sequence[Mask], classes: int
) -> tuple[float, float, float]:
    """Mean IoU, mean accuracy and accuracy of pixels, from sets of pixels."""
    pixels = [
        (n, row, column)
        for n, truth in enumerate(truths)
        for row in range(truth.shape[0])
        for column in range(truth.shape[1])
        if truth[row, column] != IGNORED
    ]
    unions, shares = [], []
    for c in range(classes):
        of_truth = {p for p in pixels if truths[p[0]][p[1:]] == c}
        of_found = {p for p in pixels if found[p[0]][p[1:]] == c}
        if of_truth | of_found:
            unions.append(len(of_truth & of_found) / len(of_truth | of_found))
        if of_truth:
            shares.append(len(of_truth & of_found) / len(of_truth))
    right = sum(truths[n][row, column] == found[n][row, column] for n, row, column in pixels)
    return sum(unions) / len(unions), sum(shares) / len(shares), right / len(pixels)
