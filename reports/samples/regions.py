"""What tested trials of a segmentation found: their files as one table, and classes over seeds."""

# Axes: N pictures of a split, C classes.

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.labels import Row
from reports.records.study import Study
from reports.samples.gather import (
    DataSamples,
    Samples,
    Scored,
    about,
    gathered,
    joined,
    tested_trials,
)
from reports.statistics.paired_tests import Paired, Summary, compare_paired, holm, summarise
from reports.tables import metadata
from tcpa_core.errors import RecordError
from tcpa_core.record import regions as record
from tcpa_core.record.files import REGIONS

REGION_TABLE = "regions"
CLOSE = 1e-9
"""Two sums of the same counts, as shares, may differ by so much."""


@dataclass(frozen=True, slots=True)
class SegmentedTrial(Scored):
    """A trial with what it took each pixel for."""

    found: record.Regions

    @property
    def test(self) -> record.SplitRegions:
        """The pictures of the test split."""
        return self.found.splits["test"]


Regions = Samples[SegmentedTrial]
DataRegions = DataSamples[SegmentedTrial]


def gather_regions(folder: Path | None, trials: pd.DataFrame, study: Study) -> Regions:
    """Read what tested trials took pixels for, as of `gather`."""
    if study.task != "segment":
        return Samples()
    return gathered(folder, tested_trials(trials, study), _read, what="pixels")


def _read(folder: Path, row: Row) -> tuple[SegmentedTrial, int]:
    path = folder / REGIONS
    found = record.read_regions(path)
    recorded = {"val": row["val_score"], "test": row["test_score"]}
    if "test" not in found.splits or not all(
        math.isclose(split.scores.miou, recorded.get(name, math.nan), abs_tol=CLOSE)
        for name, split in found.splits.items()
    ):
        raise RecordError(f"{path} has another mIoU than the journal.")
    num_rows = sum(int(_occurs(split).sum()) for split in found.splits.values())
    return SegmentedTrial(**about(row), found=found), num_rows


def _occurs(split: record.SplitRegions) -> Any:
    """Where a class is in the truth or the prediction of a picture, bool [N, C]."""
    return (split.labelled + split.predicted) > 0


def table_of_regions(samples: Regions, study: Study) -> pa.Table:
    """One row per trial, split and class over all images, and one for each image that has it."""
    parts = [
        _rows(one, name, split)
        for one in samples.trials
        for name, split in one.found.splits.items()
    ]
    return joined(parts, pa.schema(FIELDS, metadata(study, REGION_TABLE)))


_NAME = pa.dictionary(pa.int32(), pa.string())
_MEANINGS: Sequence[tuple[str, pa.DataType, str, str]] = (
    ("trial", _NAME, "number of the trial, as in `trials`", ""),
    ("split", _NAME, "val or test", ""),
    ("image", _NAME, "its path below the data set's folder; empty: all of the split together", ""),
    ("class", _NAME, "a class that is in the image's truth or prediction", ""),
    ("hits", pa.int64(), "pixels of the class that were taken for it", ""),
    ("labelled", pa.int64(), "pixels of the class", ""),
    ("predicted", pa.int64(), "labelled pixels that were taken for the class", ""),
    ("iou", pa.float64(), "hits / (labelled + predicted - hits)", "fraction"),
    ("taken_for", pa.list_(pa.int64()),
     "of all images: pixels of the class by what they were taken for, in the order of the classes",
     ""),
)  # fmt: skip
FIELDS = [
    pa.field(name, kind, metadata={"meaning": meaning, "unit": unit})
    for name, kind, meaning, unit in _MEANINGS
]
"""Columns of `regions`."""


def _rows(one: SegmentedTrial, name: str, split: record.SplitRegions) -> pa.Table:
    num_classes = len(one.found.class_names)
    image, label = np.nonzero(_occurs(split))
    whole = np.arange(num_classes)
    counts = [
        np.concatenate([part.sum(0), part[image, label]])
        for part in (split.hits, split.labelled, split.predicted)
    ]
    iou = record.iou_of(*counts)
    same = np.zeros(num_classes + len(image), np.int32)

    def named(numbers: Any, names: Sequence[str]) -> pa.Array:
        places = pa.array(numbers.astype(np.int32))
        return pa.DictionaryArray.from_arrays(places, pa.array(names, pa.string()))

    images = pa.concat_arrays([pa.nulls(num_classes, pa.int32()), pa.array(image.astype(np.int32))])
    arrays = [
        named(same, [one.trial]),
        named(same, [name]),
        pa.DictionaryArray.from_arrays(images, pa.array(split.keys, pa.string())),
        named(np.concatenate([whole, label]), one.found.class_names),
        *map(pa.array, counts),
        pa.array(iou, mask=np.isnan(iou)),
        pa.array([*split.confusion.tolist(), *[None] * len(image)], pa.list_(pa.int64())),
    ]
    return pa.table(arrays, schema=pa.schema(FIELDS))


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Intersection over union of a class on test, of one method or level over its seeds."""

    over_seeds: Summary
    difference: Paired | None
    """To the method that others are compared with, paired by seed; None: it is that one."""
    p_holm: float | None
    """After Holm over all classes and methods of the data set."""


def groups_of(data: DataRegions) -> dict[str, dict[int, SegmentedTrial]]:
    """The trials of each method or level by seed, the best by its mean on val first."""
    found: dict[str, dict[int, SegmentedTrial]] = {}
    for one in data.trials:
        by_seed = found.setdefault(one.group, {})
        known = by_seed.get(one.seed)
        if known is None or one.val_score > known.val_score:
            by_seed[one.seed] = one

    def worth(group: str) -> float:
        scores = [one.val_score for one in found[group].values()]
        return sum(scores) / len(scores)

    return {group: found[group] for group in sorted(found, key=worth, reverse=True)}


def class_scores(
    groups: Mapping[str, Mapping[int, SegmentedTrial]], baseline: str
) -> list[dict[str, ClassScore]]:
    """By class, in their order, the scores of each group.

    Args:
        groups: As of `groups_of`.
        baseline: The group that others are compared with.
    """
    values = {group: _by_class(trials) for group, trials in groups.items()}
    num_classes = len(next(iter(values.values())))
    places = [(label, group) for label in range(num_classes) for group in groups]
    paired = {
        (label, group): compare_paired(values[group][label], values[baseline][label])
        for label, group in places
        if group != baseline
    }
    adjusted = dict(zip(paired, holm([one.p for one in paired.values()]), strict=True))
    found: list[dict[str, ClassScore]] = [{} for _ in range(num_classes)]
    for label, group in places:
        place = label, group
        seeds = list(values[group][label].values())
        found[label][group] = ClassScore(summarise(seeds), paired.get(place), adjusted.get(place))
    return found


def _by_class(trials: Mapping[int, SegmentedTrial]) -> list[dict[int, float]]:
    """By class its scores on test by seed; a class that does not occur has none."""
    ious = {seed: one.test.class_iou.tolist() for seed, one in sorted(trials.items())}
    num_classes = len(next(iter(ious.values())))
    return [
        {seed: iou[label] for seed, iou in ious.items() if not math.isnan(iou[label])}
        for label in range(num_classes)
    ]


def confused_classes(one: SegmentedTrial, most: int) -> pd.DataFrame:
    """Pairs of classes whose pixels on test were mistaken most often, as shares of the class.

    Returns:
        Columns `label`, `predicted`, `count` of pixels and `of`, the pixels of the label.
    """
    names, counts = one.found.class_names, one.test.confusion
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:most]
    rows: Iterator[tuple[int, int]] = (divmod(int(place), len(names)) for place in order)
    return pd.DataFrame(
        [(names[i], names[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in rows],
        columns=["label", "predicted", "count", "of"],
    ).query("count > 0")
