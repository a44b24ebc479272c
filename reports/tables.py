"""From records to the tables of a report, and what statistics ask of the table of trials."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd
import pyarrow as pa

from reports.columns import (
    BOOL,
    COLUMNS,
    EPOCH_COLUMNS,
    INT,
    REAL,
    SCHEMA_VERSION,
    SETTING,
    TEXT,
    TRIAL_COLUMNS,
    Column,
    measured,
)
from reports.labels import NewRow, Row
from reports.records.records import Records
from reports.records.study import Study
from spaces.selection import Ranking, Replicate, rank
from tcpa_core.record.events import Tested
from tcpa_core.record.state import TrialState


def trial_table(records: Records) -> pa.Table:
    """One row per trial, also for those that failed or have not finished.

    After TRIAL_COLUMNS, each setting is a column by dotted path: null where it is not set or not
    part of the trial. A column is bool, int, float or text; a list is JSON text.
    """
    names = records.study.row_names
    rows = [_trial_row(trial, records.study, names) for trial in records.trials.values()]
    columns = measured(TRIAL_COLUMNS, records.study.score)
    arrays = [pa.array([row.get(c.name) for row in rows], c.dtype) for c in columns]
    schema = [column.arrow() for column in columns]
    # A dict keeps the order in which the settings were met; "seed" is a column of its own.
    params = [trial.planned.params for trial in records.trials.values()]
    for path in dict.fromkeys(p for one in params for p in one if p != "seed"):
        array = _setting([one.get(path) for one in params])
        arrays.append(array)
        about = {"meaning": f"setting {path}", "unit": "", "role": SETTING}
        schema.append(pa.field(path, array.type, metadata=about))
    return pa.table(arrays, schema=pa.schema(schema, metadata(records.study, "trials")))


def epoch_table(records: Records) -> pa.Table:
    """One row per trial and epoch. Null: not reported; NaN: the measured value was no number."""
    columns = measured(EPOCH_COLUMNS, records.study.score)
    schema = pa.schema([c.arrow() for c in columns], metadata(records.study, "epochs"))
    # the very columns, not copied: only their metadata is new
    return pa.table([records.epochs[c.name] for c in columns], schema=schema)


def table_of(rows: Iterable[Mapping[str, object]], study: Study, name: str) -> pa.Table:
    """Table `name` with one row per mapping; absent keys are null."""
    return of_columns(rows, COLUMNS[name], metadata(study, name))


def of_columns(
    rows: Iterable[Mapping[str, object]], columns: Sequence[Column], about: Mapping[str, str]
) -> pa.Table:
    """A table of these columns with one row per mapping; absent keys are null.

    Args:
        about: Metadata of the table.
    """
    rows = list(rows)
    arrays = [pa.array([row.get(c.name) for row in rows], c.dtype) for c in columns]
    return pa.table(arrays, schema=pa.schema([c.arrow() for c in columns], about))


def metadata(study: Study, table: str) -> dict[str, str]:
    """What every table carries about itself."""
    return {
        "tcpa.schema_version": str(SCHEMA_VERSION),
        "tcpa.table": table,
        "tcpa.study": json.dumps(study.document),
    }


def frame_of(table: pa.Table) -> pd.DataFrame:
    """As pandas: whole numbers and truth values keep missing values as such (Int64, boolean)."""
    # pandas' own default turns a column with one gap into floats and seeds into 3.0.
    kinds = {INT: pd.Int64Dtype(), BOOL: pd.BooleanDtype()}
    return table.to_pandas(types_mapper=kinds.get)


def settings_of(table: pa.Table) -> tuple[str, ...]:
    """Columns of the trial table that are settings."""
    return tuple(
        f.name for f in table.schema if (f.metadata or {}).get(b"role") == SETTING.encode()
    )


def varied(trials: pd.DataFrame, settings: Sequence[str]) -> list[str]:
    """Settings that differ between trials; absent in some counts as different."""
    return [path for path in settings if trials[path].nunique(dropna=False) > 1]


def ranking(trials: pd.DataFrame, study: Study) -> Ranking:
    """The points of trials by the one rule for the selected one; trials as in `trials`."""
    objective = study.objectives[0]
    # what was dropped lacks seeds by design
    seeds = () if study.races or study.races_seeds else study.seeds
    return rank(replicates(trials, objective.metric), objective, seeds)


def replicates(trials: pd.DataFrame, metric: str) -> list[Replicate]:
    """What the selection of a point needs of each trial; trials as in `trials`."""
    is_done = trials["status"] == "completed"
    values = trials[metric].where(is_done).astype(float)
    columns = (trials["trial"], trials["point"].fillna(trials["trial"]), trials["seed"].fillna(0))
    return [
        Replicate(str(trial), str(point), int(seed), None if value != value else value)
        for trial, point, seed, value in zip(*columns, values, strict=True)
    ]


def last_epochs(trials: pd.DataFrame) -> pd.Series:
    """The last epoch of each trial, those of the trial that it began from counted; trials as in
    `trials`."""
    return trials["num_epochs"] + trials["from_epoch"].fillna(0)


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by status."""
    return {str(k): int(v) for k, v in trials["status"].value_counts().sort_index().items()}


def _trial_row(trial: TrialState, study: Study, names: Mapping[str, str]) -> NewRow:
    planned, result = trial.planned, trial.result
    row: NewRow = {} if result is None else result.as_dict()
    if result is None:
        row["device"] = None if trial.started is None else trial.started.device
    tested = _tested(trial)
    if tested is not None:
        known = (f.name for f in fields(tested) if f.name.startswith("test_"))
        row |= {name: getattr(tested, name) for name in known}
    data = study.data_of(planned.params)
    shared = data.get("shared") or {}
    duration, on_gpu = row.get("duration_s"), (row["device"] or "").startswith("cuda")
    return {
        **row,
        "trial": planned.trial,
        "status": trial.status,
        "left_out": _left_out(trial.status, row, study.objectives[0].metric),
        "origin": planned.origin,
        "from_trial": planned.parent.trial if planned.parent else "",
        "from_epoch": planned.parent.epoch if planned.parent else None,
        "replaces": planned.parent.replaces if planned.parent else "",
        "reused_from": trial.reused.text if trial.reused else "",
        "digest": planned.digest,
        "point": planned.point,
        "seed": planned.seed,
        "gpu_s": None if duration is None else duration if on_gpu else 0.0,
        "warnings": json.dumps(row.get("warnings") or []),
        "val_in_train": shared.get("train/val"),
        "test_in_train": shared.get("train/test"),
        "test_in_val": shared.get("val/test"),
        "two_labels": data.get("two_labels"),
        "deviation": "; ".join(planned.deviation),
        "cells": json.dumps([_named(cell, names) for cell in planned.cells]),
    }


def _named(cell: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """A cell whose level bears its settings, as the rows of a confirmation do."""
    level = str(cell.get("level", ""))
    return {**cell, "level": names[level]} if level in names else cell


def _tested(trial: TrialState) -> Tested | None:
    """What the test split said of a trial's present state; None: it was started again since."""
    tested, started = trial.tested, trial.started
    if tested is not None and started is not None and (tested.n or 0) < (started.n or 0):
        return None
    return tested


def _left_out(status: str, row: Row, metric: str) -> str:
    """Why statistics leave a trial out; "" if they use it."""
    if status != "completed":
        return status
    value = row.get(metric)
    if value is None:
        return f"{metric} is missing"
    return "" if abs(value) < float("inf") else f"{metric} is {value}"


def _setting(values: Sequence[Any]) -> pa.Array:
    """Values of one setting in the narrowest type that holds them all."""
    # By exact type: True is also an int, and 1 in a column of truth values would be lost.
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, BOOL)
    if kinds == {int} and all(abs(v) < 2**63 for v in values if v is not None):
        return pa.array(values, INT)
    # whole numbers too large for 64 bits end here as well, as floats
    if kinds and kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], REAL)
    return pa.array([_as_text(value) for value in values], TEXT)


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
