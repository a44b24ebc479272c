"""From a study folder's journal to records: one dict per trial, columns of numbers for epochs."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from reports.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import FINAL_KINDS, EpochReport, TrialResult, decode_line, read_journal

EPOCH_FIELDS = tuple(f.name for f in fields(EpochReport) if f.name != "epoch")
RESULT_FIELDS = tuple(f.name for f in fields(TrialResult))
IDENTITY_FIELDS = ("params", "digest", "point", "seed", "labels", "origin")

NAN = float("nan")


class EpochColumns:
    """Epoch rows of all trials, column by column: 500,000 rows stay below 50 MB.

    A missing value is NaN, and so is a value that became NaN in training.
    """

    def __init__(self) -> None:
        self.trial: array[int] = array("q")
        self.epoch: array[int] = array("q")
        self.values: dict[str, array[float]] = {name: array("d") for name in EPOCH_FIELDS}

    def append(self, trial: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Add one epoch of the trial with that index."""
        self.trial.append(trial)
        self.epoch.append(epoch)
        for name, column in self.values.items():
            value = values.get(name)
            column.append(NAN if value is None else value)

    def latest(self) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
        """Rows by trial and epoch, and how many were replaced by a later report of that epoch.

        A trial that goes on from a checkpoint may train an epoch once more; the last report counts.
        """
        trial = np.asarray(self.trial, dtype=np.int64)
        epoch = np.asarray(self.epoch, dtype=np.int64)
        order = np.lexsort((np.arange(len(trial)), epoch, trial))
        trial, epoch = trial[order], epoch[order]
        last = np.ones(len(trial), dtype=bool)
        last[:-1] = (trial[1:] != trial[:-1]) | (epoch[1:] != epoch[:-1])
        columns: dict[str, Any] = {"trial": trial[last], "epoch": epoch[last]}
        for name, values in self.values.items():
            columns[name] = np.asarray(values, dtype=np.float64)[order][last]
        return columns, int(len(trial) - last.sum())


@dataclass(slots=True)
class Records:
    """All that a study recorded. `epochs` refers to trials by their index in `trials`."""

    study: Study
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Keys: trial, params, digest, point, seed, labels, origin, status, and once finished the
    fields of TrialResult. Status: planned, running, completed, pruned or failed."""
    epochs: EpochColumns = field(default_factory=EpochColumns)
    notes: list[str] = field(default_factory=list)
    """Sentences on what was read but not used, for every report."""


def load_journal(study_dir: Path) -> Records:
    """Read study.yaml and journal.jsonl of a study folder.

    Raises:
        StudyError: No such study folder, or it has no journal.
        RecordError: A line other than the last is damaged, or tells of a trial never planned.
    """
    records = Records(Study.read(study_dir))
    path = study_dir / "journal.jsonl"
    if not path.is_file():
        raise StudyError(f"{path} is missing; the report of a study is made from its journal.")
    index: dict[str, int] = {}
    for event in read_journal(path):
        kind = event["kind"]
        if kind == "planned":
            _plan(records, index, event)
        elif "trial" in event:
            position = index.get(event["trial"])
            if position is None:
                raise RecordError(
                    f"{path}: event {kind!r} of trial {event['trial']!r}, which was never "
                    "planned; the journal lacks a line."
                )
            if kind == "epoch":
                records.epochs.append(position, event["epoch"], event)
            else:
                _apply(records.trials[position], kind, event)
    if _has_torn_tail(path):
        records.notes.append(
            "The last line of the journal is torn (its writer was stopped); it was left out."
        )
    _mark_running(records)
    return records


def _plan(records: Records, index: dict[str, int], event: Mapping[str, Any]) -> None:
    """Add a trial; a trial planned again after a resume keeps what it has."""
    if event["trial"] in index:
        return
    index[event["trial"]] = len(records.trials)
    trial = {name: event.get(name) for name in IDENTITY_FIELDS}
    records.trials.append({"trial": event["trial"], "status": "planned", **trial})


def _apply(trial: dict[str, Any], kind: str, event: Mapping[str, Any]) -> None:
    if kind == "started":
        # Started again after an end: the driver took the trial up once more.
        trial.update(status="running", device=event.get("device"))
    elif kind in FINAL_KINDS:
        trial.update({name: event[name] for name in RESULT_FIELDS if name in event})
        trial["status"] = "completed" if kind == "reused" else kind
        if kind == "reused":
            trial["reused_from"] = f"{event.get('source_study')}/{event.get('source_trial')}"
    elif kind == "tested":
        trial.update({name: event.get(name) for name in ("test_loss", "test_accuracy")})


def _mark_running(records: Records) -> None:
    """A trial with an epoch but no final event is running, also if its start was not recorded."""
    for position in set(records.epochs.trial):
        if records.trials[position]["status"] == "planned":
            records.trials[position]["status"] = "running"


def _has_torn_tail(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - (1 << 20)))
        lines = file.readlines()
    last = lines[-1] if lines else b""
    if not last or last.endswith(b"\n"):
        return False
    try:
        decode_line(last, path.name)
    except RecordError:
        return True
    return False
