"""Records to data frames: `trials` and `epochs`, one row per trial and per trial and epoch."""

import json
from typing import Any

import numpy as np
import pandas as pd

from reports.load import EPOCH_FIELDS, RESULT_FIELDS, Records

IDENTITY = ("trial", "digest", "point", "seed", "status", "reason", "origin")
RESULTS = tuple(f for f in RESULT_FIELDS if f not in ("status", "reason", "warnings"))

MEANING = {
    "trial": ("", "number of the trial in its study"),
    "digest": ("", "identity of everything that changes the result"),
    "point": ("", "the digest without the seed; equal for replicates"),
    "seed": ("", "replicate"),
    "status": ("", "planned, running, completed, pruned or failed"),
    "reason": ("", "why it failed"),
    "origin": ("", "first_point, sampler, replicate or design"),
    "best_epoch": ("", "epoch whose state was selected, 1-based"),
    "num_epochs": ("", "epochs trained"),
    "val_accuracy": ("fraction", "on val, of the selected epoch (of each epoch in `epochs`)"),
    "val_loss": ("nat", "cross-entropy on val"),
    "test_accuracy": ("fraction", "on test, of the selected epoch; empty where it was not read"),
    "test_loss": ("nat", "cross-entropy on test"),
    "num_trainable": ("", "trainable parameters with head"),
    "num_trainable_no_head": ("", "trainable parameters without head"),
    "flops_per_image": ("FLOP", "forward, one image, evaluation, multiply-add = 2"),
    "duration_s": ("s", "wall time, divided among trials that shared the device"),
    "peak_memory_bytes": ("byte", "peak of the process or device"),
    "device": ("", "where it ran"),
    "warnings": ("", "what every use of the row has to say, JSON list"),
    "epoch": ("", "1-based"),
    "train_loss": ("nat", "mean over the epoch, method loss included"),
    "ce_loss": ("nat", "mean cross-entropy over the epoch"),
    "match_loss": ("nat", "weighted method loss"),
    "lr": ("", "learning rate of the last step"),
    "images_per_s": ("1/s", "training images per second of duration_s"),
}
"""Unit and meaning of every column that is not a setting."""


def trial_table(records: Records) -> pd.DataFrame:
    """One row per trial; settings by dotted path, lists as JSON."""
    rows = []
    for trial in records.trials:
        row: dict[str, Any] = {name: trial.get(name) for name in IDENTITY}
        row |= {name: trial.get(name) for name in RESULTS}
        row["warnings"] = json.dumps(trial.get("warnings") or [])
        row |= {path: _plain(value) for path, value in (trial.get("params") or {}).items()}
        rows.append(row)
    columns = [*IDENTITY, *RESULTS, "warnings"]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    return _typed(frame)


def epoch_table(records: Records) -> pd.DataFrame:
    """One row per trial and epoch."""
    columns, replaced = records.epochs.latest()
    if replaced:
        records.notes.append(
            f"{replaced} epochs were trained again after a resume; the later report counts."
        )
    names = np.array([trial["trial"] for trial in records.trials], dtype=object)
    frame = pd.DataFrame({"trial": names[columns["trial"]] if len(names) else []})
    for name in ("epoch", *EPOCH_FIELDS):
        frame[name] = columns[name]
    return frame


def varied(trials: pd.DataFrame) -> list[str]:
    """Settings that differ between trials, the seed not counted."""
    settings = [c for c in trials.columns if "." in c or c == "methods"]
    return [c for c in settings if trials[c].nunique(dropna=False) > 1]


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by status."""
    return {str(k): int(v) for k, v in trials["status"].value_counts().sort_index().items()}


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns as whole numbers, numbers, truth values or text, missing values kept missing."""
    for name in frame.columns:
        present = frame[name].dropna()
        if len(present) and all(isinstance(v, bool) for v in present):
            frame[name] = frame[name].astype("boolean")
        elif len(present) and all(isinstance(v, int) and not isinstance(v, bool) for v in present):
            frame[name] = frame[name].astype("Int64")
        elif len(present) and all(isinstance(v, int | float) for v in present):
            frame[name] = frame[name].astype("Float64")
        else:
            frame[name] = frame[name].map(lambda v: v if v is None or v != v else str(v))
            frame[name] = frame[name].astype("string")
    return frame
