"""The files that workers left beside the checkpoints of tested trials, as one table.

Of a search only those of the selected setting are read: test values of other trials stay unseen. A
file counts only where its accuracies are those of the journal, so that a table made of it cannot
contradict one of trials.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.labels import Row, group_column
from reports.records.study import Study
from reports.statistics.across_data_sets import dataset_of
from reports.tables import metadata, ranking
from tcpa_core.errors import RecordError
from tcpa_core.record.files import CHECKPOINTS, PREDICTIONS
from tcpa_core.record.predictions import (
    MOST_CLASSES,
    Predictions,
    SplitPredictions,
    read_predictions,
)

MOST_ROWS = 2_000_000
"""Images of all trials together, at most: some 70 MB as a table, and seconds of a report."""


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial with what it took each image for."""

    trial: str
    group: str
    """Its method, or level of a design (`reports.labels.group_column`)."""
    seed: int
    dataset: str
    val_accuracy: float
    found: Predictions

    @property
    def test(self) -> SplitPredictions:
        """The images of the test split."""
        return self.found.splits["test"]

    @property
    def name(self) -> str:
        """For people: its group, if it has a name, and its number."""
        return f"{self.group} ({self.trial})" if self.group else self.trial


@dataclass(frozen=True, slots=True)
class DataSamples:
    """The tested trials on one data set, all with the very same test images."""

    trials: tuple[ScoredTrial, ...]
    """In the order planned."""

    @property
    def dataset(self) -> str:
        """Its name; "": the study does not say."""
        return self.trials[0].dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.trials[0].found.class_names

    @property
    def best(self) -> list[ScoredTrial]:
        """The best trial of each method or level by val, the best one first."""
        found: dict[str, ScoredTrial] = {}
        for one in self.trials:
            if one.group not in found or one.val_accuracy > found[one.group].val_accuracy:
                found[one.group] = one
        return sorted(found.values(), key=lambda one: -one.val_accuracy)


@dataclass(frozen=True)
class Samples:
    """What all tested trials of a study took each image for."""

    trials: tuple[ScoredTrial, ...] = ()
    """In the order planned; () where no worker has kept it."""
    notes: tuple[str, ...] = field(default=())
    """Sentences on what is missing."""

    @cached_property
    def by_data(self) -> list[DataSamples]:
        """By data set: those that have the same classes and test images, most trials first."""
        groups: dict[Any, list[ScoredTrial]] = {}
        for one in self.trials:
            same = (one.dataset, one.found.class_names, tuple(one.test.keys))
            groups.setdefault(same, []).append(one)
        found = [DataSamples(tuple(trials)) for trials in groups.values()]
        return sorted(found, key=lambda one: -len(one.trials))


def gather(folder: Path | None, trials: pd.DataFrame, study: Study) -> Samples:
    """Read the files of tested trials.

    Args:
        folder: Of the study; None: it was read from MLflow, which does not have them.
        trials: Its table of trials.
    """
    if folder is None:
        return Samples()
    rows = _tested(trials, study)
    found: dict[str, ScoredTrial] = {}
    notes, left = [], MOST_ROWS
    for row in _leaders_first(rows):
        try:
            one = _read(folder, row)
        except FileNotFoundError:
            continue
        except RecordError as err:
            notes.append(f"{err} What trial {row['trial']} took single images for is left out.")
            continue
        left -= sum(len(split.labels) for split in one.found.splits.values())
        if left < 0 and found:
            notes.append(
                f"Single images are those of {len(found)} of {len(rows)} tested trials, the best "
                f"of each method or level among them: more than {MOST_ROWS:,} rows are not kept."
            )
            break
        found[one.trial] = one
    kept = [found[trial] for trial in rows["trial"] if trial in found]
    if kept and not notes and len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept)} of {len(rows)} tested trials have not kept what they took "
            "single images for: an older version tested them, or their files are gone."
        )
    return Samples(tuple(kept), tuple(notes))


def missing(folder: Path | None, trials: pd.DataFrame, study: Study) -> list[str]:
    """Trials of which `gather` would find no file."""
    if folder is None:
        return []
    names = _tested(trials, study)["trial"]
    return [name for name in names if not (folder / CHECKPOINTS / name / PREDICTIONS).is_file()]


def _tested(trials: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Trials whose test values are shown, with their group and data set."""
    rows = trials.assign(group=group_column(trials), dataset=dataset_of(trials))
    rows = rows[rows["test_accuracy"].notna() & (rows["left_out"] == "")]
    if not study.selects:
        return rows
    best = ranking(trials, study).selected
    return rows[rows["trial"].isin(best.trials if best else ())]


def _leaders_first(rows: pd.DataFrame) -> Iterator[Row]:
    """The trials, those that are the best of their group before all others."""
    rows = rows.sort_values("val_accuracy", ascending=False, kind="stable")
    is_later = rows.duplicated(["dataset", "group"])
    columns = ["trial", "group", "seed", "dataset", "val_accuracy", "test_accuracy"]
    yield from pd.concat([rows[~is_later], rows[is_later].sort_index()])[columns].to_dict("records")


def _read(folder: Path, row: Row) -> ScoredTrial:
    """A trial with its file.

    Raises:
        FileNotFoundError: It has none.
        RecordError: It is damaged, or of another training of the trial.
    """
    path = folder / CHECKPOINTS / row["trial"] / PREDICTIONS
    found = read_predictions(path)
    recorded = {"val": row["val_accuracy"], "test": row["test_accuracy"]}
    if "test" not in found.splits or any(
        split.accuracy != recorded.get(name) for name, split in found.splits.items()
    ):
        raise RecordError(f"{path} has other accuracies than the journal.")
    return ScoredTrial(
        trial=row["trial"],
        group=str(row["group"]),
        seed=0 if pd.isna(row["seed"]) else int(row["seed"]),
        dataset=str(row["dataset"]),
        val_accuracy=float(row["val_accuracy"]),
        found=found,
    )


def table_of_samples(samples: Samples, study: Study) -> pa.Table:
    """One row per trial, split and image; see `COLUMNS`."""
    parts = [
        _rows(one, name, split)
        for one in samples.trials
        for name, split in one.found.splits.items()
    ]
    about = metadata(study, TABLE_NAME)
    if not parts:
        return pa.schema(FIELDS, about).empty_table()
    # Dictionaries differ from one data set to the next.
    return pa.concat_tables(parts).unify_dictionaries().replace_schema_metadata(about)


TABLE_NAME = "predictions"
_NAME = pa.dictionary(pa.int32(), pa.string())
_MEANINGS: Sequence[tuple[str, pa.DataType, str]] = (
    ("trial", _NAME, "number of the trial, as in `trials`"),
    ("split", _NAME, "val or test"),
    ("image", _NAME, "its path below the data set's folder, or its number"),
    ("label", _NAME, "its class"),
    *(
        (f"class_{n + 1}", _NAME, f"class of the {n + 1}. highest probability; empty: there is none"
         if n else "the predicted class, as accuracy counts it")
        for n in range(MOST_CLASSES)
    ),
    *(
        (f"probability_{n + 1}", pa.float32(), f"of class_{n + 1}, by the softmax")
        for n in range(MOST_CLASSES)
    ),
    ("probability_of_label", pa.float32(), "of the label's class, by the softmax"),
)  # fmt: skip
FIELDS = [
    pa.field(name, kind, metadata={"meaning": meaning, "unit": ""})
    for name, kind, meaning in _MEANINGS
]
"""Columns of `predictions`."""


def _rows(one: ScoredTrial, name: str, split: SplitPredictions) -> pa.Table:
    count, kept = split.classes.shape
    classes = pa.array(one.found.class_names, pa.string())
    same = pa.array(np.zeros(count, np.int32))

    def named(numbers: Any, names: pa.Array) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), names)

    def ranked(values: Any, make: Any, kind: pa.DataType) -> list[pa.Array]:
        there = [make(np.ascontiguousarray(values[:, n])) for n in range(kept)]
        return there + [pa.nulls(count, kind)] * (MOST_CLASSES - kept)

    arrays = [
        pa.DictionaryArray.from_arrays(same, pa.array([one.trial])),
        pa.DictionaryArray.from_arrays(same, pa.array([name])),
        named(np.arange(count, dtype=np.int32), pa.array(split.keys, pa.string())),
        named(split.labels, classes),
        *ranked(split.classes, lambda column: named(column, classes), _NAME),
        *ranked(split.probabilities, pa.array, pa.float32()),
        pa.array(split.of_label),
    ]
    return pa.table(arrays, schema=pa.schema(FIELDS))
