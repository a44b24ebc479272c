"""The files that workers left beside the checkpoints of tested trials, as one table.

Of a search only those of the selected setting are read: test values of other trials stay unseen. A
file counts only where its accuracies are those of the journal, so that a table made of it cannot
contradict one of trials.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.labels import Row, group_column
from reports.records.study import Study
from reports.statistics.across_data_sets import dataset_of
from reports.tables import metadata, ranking
from tcpa_core.errors import RecordError
from tcpa_core.record.files import CHECKPOINTS, FOUND, PREDICTIONS
from tcpa_core.record.predictions import (
    MOST_CLASSES,
    Predictions,
    SplitPredictions,
    read_predictions,
)
from tcpa_core.record.regions import Regions, SplitRegions

MOST_ROWS = 2_000_000
"""Images of all trials together, at most: some 70 MB as a table, and seconds of a report."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A tested trial with what it found in each image of val and test."""

    trial: str
    group: str
    """Its method, or level of a design (`reports.labels.group_column`)."""
    seed: int
    dataset: str
    val_score: float
    """Its task's score on val."""
    found: Predictions | Regions

    @property
    def test(self) -> SplitPredictions | SplitRegions:
        """The images of the test split."""
        return self.found.splits["test"]

    @property
    def name(self) -> str:
        """For people: its group, if it has a name, and its number."""
        return f"{self.group} ({self.trial})" if self.group else self.trial


@dataclass(frozen=True, slots=True)
class ScoredTrial(Scored):
    """A trial with what it took each image for."""

    found: Predictions

    @property
    def test(self) -> SplitPredictions:
        """The images of the test split."""
        return self.found.splits["test"]


Trial = TypeVar("Trial", bound=Scored)


@dataclass(frozen=True, slots=True)
class DataSamples(Generic[Trial]):
    """The tested trials on one data set, all with the very same test images."""

    trials: tuple[Trial, ...]
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
    def best(self) -> list[Trial]:
        """The best trial of each method or level by val, the best one first."""
        found: dict[str, Trial] = {}
        for one in self.trials:
            if one.group not in found or one.val_score > found[one.group].val_score:
                found[one.group] = one
        return sorted(found.values(), key=lambda one: -one.val_score)


@dataclass(frozen=True)
class Samples(Generic[Trial]):
    """What all tested trials of a study found in each image."""

    trials: tuple[Trial, ...] = ()
    """In the order planned; () where no worker has kept it."""
    notes: tuple[str, ...] = field(default=())
    """Sentences on what is missing."""

    @cached_property
    def by_data(self) -> list[DataSamples[Trial]]:
        """By data set: those that have the same classes and test images, most trials first."""
        groups: dict[Any, list[Trial]] = {}
        for one in self.trials:
            same = (one.dataset, one.found.class_names, tuple(one.test.keys))
            groups.setdefault(same, []).append(one)
        found = [DataSamples(tuple(trials)) for trials in groups.values()]
        return sorted(found, key=lambda one: -len(one.trials))


PredictionSamples = Samples[ScoredTrial]


def gather(folder: Path | None, trials: pd.DataFrame, study: Study) -> PredictionSamples:
    """Read what tested trials took images for.

    Args:
        folder: Of the study; None: it was read from MLflow, which does not have the files.
        trials: Its table of trials.
    """
    if study.task != "classify":
        return Samples()
    return gathered(folder, tested_trials(trials, study), _read, what="single images")


def gathered(
    folder: Path | None,
    rows: pd.DataFrame,
    read: Callable[[Path, Row], tuple[Trial, int]],
    *,
    what: str,
) -> Samples[Trial]:
    """Read the files of tested trials, those that are the best of their group before all others.

    Args:
        rows: As of `tested_trials`.
        read: Gives a trial with its file, and its number of rows in a table; raises what
            `read_predictions` does.
        what: That the files are about, for notes.
    """
    if folder is None:
        return Samples()
    found: dict[str, Trial] = {}
    notes, left = [], MOST_ROWS
    for row in _leaders_first(rows):
        try:
            one, num_rows = read(folder / CHECKPOINTS / row["trial"], row)
        except FileNotFoundError:
            continue
        except RecordError as err:
            notes.append(f"{err} What trial {row['trial']} took {what} for is left out.")
            continue
        left -= num_rows
        if left < 0 and found:
            notes.append(
                f"{what.capitalize()} are those of {len(found)} of {len(rows)} tested trials, the "
                f"best of each method or level among them: more than {MOST_ROWS:,} rows are not "
                "kept."
            )
            break
        found[one.trial] = one
    kept = [found[trial] for trial in rows["trial"] if trial in found]
    if kept and not notes and len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept)} of {len(rows)} tested trials have not kept what they took "
            f"{what} for: an older version tested them, or their files are gone."
        )
    return Samples(tuple(kept), tuple(notes))


def missing(folder: Path | None, trials: pd.DataFrame, study: Study) -> list[str]:
    """Files of tested trials that are not here, as names below the study's folder."""
    if folder is None:
        return []
    names = [f"{CHECKPOINTS}/{trial}/{FOUND[study.task]}"
             for trial in tested_trials(trials, study)["trial"]]  # fmt: skip
    return [name for name in names if not (folder / name).is_file()]


def tested_trials(trials: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Trials whose test values are shown, with their group and data set."""
    score = study.score
    rows = trials.assign(group=group_column(trials), dataset=dataset_of(trials))
    rows = rows.assign(val_score=trials[score.val], test_score=trials[score.test])
    rows = rows[rows["test_score"].notna() & (rows["left_out"] == "")]
    if not study.selects:
        return rows
    best = ranking(trials, study).selected
    return rows[rows["trial"].isin(best.trials if best else ())]


def _leaders_first(rows: pd.DataFrame) -> Iterator[Row]:
    """The trials, those that are the best of their group before all others."""
    rows = rows.sort_values("val_score", ascending=False, kind="stable")
    is_later = rows.duplicated(["dataset", "group"])
    columns = ["trial", "group", "seed", "dataset", "val_score", "test_score"]
    yield from pd.concat([rows[~is_later], rows[is_later].sort_index()])[columns].to_dict("records")


def _read(folder: Path, row: Row) -> tuple[ScoredTrial, int]:
    """A trial with its file.

    Raises:
        FileNotFoundError: It has none.
        RecordError: It is damaged, or of another training of the trial.
    """
    path = folder / PREDICTIONS
    found = read_predictions(path)
    recorded = {"val": row["val_score"], "test": row["test_score"]}
    if "test" not in found.splits or any(
        split.accuracy != recorded.get(name) for name, split in found.splits.items()
    ):
        raise RecordError(f"{path} has other accuracies than the journal.")
    num_rows = sum(len(split.labels) for split in found.splits.values())
    return ScoredTrial(**about(row), found=found), num_rows


def about(row: Row) -> dict[str, Any]:
    """Fields of `Scored` but for the file, of a row of `tested_trials`."""
    return {
        "trial": row["trial"],
        "group": str(row["group"]),
        "seed": 0 if pd.isna(row["seed"]) else int(row["seed"]),
        "dataset": str(row["dataset"]),
        "val_score": float(row["val_score"]),
    }


def table_of_samples(samples: PredictionSamples, study: Study) -> pa.Table:
    """One row per trial, split and image; see `COLUMNS`."""
    parts = [
        _rows(one, name, split)
        for one in samples.trials
        for name, split in one.found.splits.items()
    ]
    return joined(parts, pa.schema(FIELDS, metadata(study, TABLE_NAME)))


def joined(parts: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables of data sets whose dictionaries differ, as one with the metadata of a schema."""
    if not parts:
        return schema.empty_table()
    return pa.concat_tables(parts).unify_dictionaries().replace_schema_metadata(schema.metadata)


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
