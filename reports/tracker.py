"""From the MLflow mirror of a study to the same records as from its journal."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from reports.journal import (
    EPOCH_FIELDS,
    EPOCH_SCHEMA,
    RESULT_FIELDS,
    Records,
    in_order,
    note_replaced,
)
from reports.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import TrialResult

SELECTED = {"selected_val_accuracy": "val_accuracy", "selected_val_loss": "val_loss",
            "total_duration_s": "duration_s"}  # fmt: skip
"""Final values whose plain names are those of the per-epoch series."""
_WHOLE = {f.name for f in fields(TrialResult) if "int" in str(f.type)}
_PAGE = 1000


def load_mlflow(tracking_uri: str, study: str) -> Records:
    """Read a study from MLflow, as `tcpa sync` left it there.

    Args:
        tracking_uri: As given to the study.
        study: Its name.

    Raises:
        StudyError: MLflow has no such study.
        RecordError: A run lacks what the mirror writes.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise StudyError(
            f"MLflow has no study {study!r}; run 'tcpa sync {study}' or correct the name."
        )
    runs = _runs(client, experiment.experiment_id)
    parent = next((run for run in runs if run.data.tags.get("tcpa.kind") == "study"), None)
    if parent is None:
        raise RecordError(f"study {study!r} in MLflow has no run of its own; run 'tcpa sync'.")
    records = Records(_study(client, parent))
    trials: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    of_trials = [run for run in runs if "tcpa.trial" in run.data.tags]
    for run in sorted(of_trials, key=lambda run: str(run.data.tags["tcpa.trial"])):
        name = run.data.tags["tcpa.trial"]
        history = {k: client.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
        trials[name] = _trial(client, run, history)
        rows += _epochs(name, history)
    epochs = pa.Table.from_pylist(rows, schema=EPOCH_SCHEMA)
    records.epochs = in_order(epochs, trials, f"study {study!r} in MLflow")
    records.trials = list(trials.values())
    note_replaced(records, len(epochs) - len(records.epochs))
    return records


def _runs(client: MlflowClient, experiment: str) -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _study(client: MlflowClient, parent: Run) -> Study:
    if "study.yaml" not in {a.path for a in client.list_artifacts(parent.info.run_id)}:
        raise RecordError(
            "the study's run in MLflow lacks study.yaml (an older version mirrored it); run "
            "'tcpa sync' again."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(parent.info.run_id, "study.yaml", folder)
        return Study.read(Path(path).parent)


def _trial(client: MlflowClient, run: Run, history: Mapping[str, list[Metric]]) -> dict[str, Any]:
    tags = run.data.tags
    trial: dict[str, Any] = {"trial": tags["tcpa.trial"], "status": "planned"}
    try:
        trial |= {
            "params": _params(client, run),
            "digest": tags["tcpa.digest"],
            "point": tags["tcpa.point"],
            "seed": int(tags["tcpa.seed"]),
            "labels": json.loads(tags["tcpa.labels"]),
            "origin": tags["tcpa.origin"],
            "deviation": json.loads(tags.get("tcpa.deviation", "[]")),
        }
        started = json.loads(tags.get("tcpa.started", "null"))
        result = json.loads(tags.get("tcpa.result", "null"))
        if started:
            trial.update(status="running", device=started["device"])
        if result and not (started and (started["t"] or 0) > (result.get("t") or 0)):
            trial.update(_result(tags, result, history))
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as err:
        raise RecordError(
            f"MLflow run {run.info.run_id} of trial {trial['trial']!r} lacks a tag of the mirror, "
            f"or it was cut off ({err}); make the report from the journal."
        ) from err
    return trial


def _result(
    tags: Mapping[str, str], result: Mapping[str, Any], history: Mapping[str, list[Metric]]
) -> dict[str, Any]:
    """Fields of TrialResult from the metrics at step 0 and the tags."""
    found: dict[str, Any] = {"status": tags["tcpa.status"], "reason": tags.get("tcpa.reason", "")}
    found |= {key: result[key] for key in ("device", "warnings") if key in result}
    if "source_study" in result:
        found["reused_from"] = f"{result['source_study']}/{result['source_trial']}"
    for key, metrics in history.items():
        name = SELECTED.get(key, key)
        at_end = [m for m in metrics if m.step == 0]
        if name in RESULT_FIELDS and at_end:
            value = max(at_end, key=lambda m: m.timestamp).value
            found[name] = int(value) if name in _WHOLE else value
    return found


def _epochs(trial: str, history: Mapping[str, list[Metric]]) -> list[dict[str, Any]]:
    """One row per report of an epoch, in the order reported."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for key in EPOCH_FIELDS:
        for metric in history.get(key, []):
            if metric.step > 0:
                at = (metric.timestamp, metric.step)
                row = rows.setdefault(at, {"trial": trial, "epoch": metric.step})
                row[key] = metric.value
    return [rows[at] for at in sorted(rows)]


def _params(client: MlflowClient, run: Run) -> dict[str, Any]:
    """Settings by dotted path; a tag holds 5,000 characters, longer ones are in the artifact."""
    try:
        return dict(json.loads(run.data.tags["tcpa.params"]))
    except ValueError:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, "config.json", folder)
            return dict(json.loads(Path(path).read_text(encoding="utf-8")))
