"""From the MLflow mirror of a study to the same records as from its journal."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from reports.records.journal import (
    EPOCH_SCHEMA,
    Records,
    in_order,
    note_replaced,
)
from reports.records.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.values import TrialResult

_FIELDS = {metric: name for name, metric in mirror.FINAL_METRICS.items()}
"""Fields of TrialResult by the metric that has them."""
_WHOLE = {f.name for f in fields(TrialResult) if "int" in str(f.type)}
_PAGE = 1000


def load_mlflow(tracking_uri: str, study: str, study_id: str | None = None) -> Records:
    """Read a study from MLflow, as `tcpa sync` left it there.

    Args:
        tracking_uri: As given to the study.
        study: Its name.
        study_id: `id` of its study.yaml, where MLflow has several studies of the name.

    Raises:
        StudyError: MLflow has no such study, or several.
        RecordError: A run lacks what the mirror writes.
    """
    if _is_absent(tracking_uri):  # MLflow would make it
        raise StudyError(f"MLflow has no study {study!r}: no database lies at {tracking_uri!r}.")
    client = MlflowClient(tracking_uri=tracking_uri)
    parent = _chosen(client, study, study_id)
    records = Records(_study(client, parent))
    trials: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    of_trials = [
        run
        for run in _runs(client, [parent.info.experiment_id])
        if mirror.TRIAL in run.data.tags and _owner(run) == _owner(parent)
    ]
    for run in sorted(of_trials, key=lambda run: str(run.data.tags[mirror.TRIAL])):
        name = run.data.tags[mirror.TRIAL]
        history = {k: client.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
        trials[name] = _trial(client, run, history)
        rows += _epochs(name, history)
    epochs = pa.Table.from_pylist(rows, schema=EPOCH_SCHEMA)
    records.epochs = in_order(epochs, trials, f"study {study!r} in MLflow")
    records.trials = list(trials.values())
    note_replaced(records, len(epochs) - len(records.epochs))
    return records


def _is_absent(tracking_uri: str) -> bool:
    """Whether an address is that of a database file which does not exist."""
    scheme, _, rest = tracking_uri.partition(":///")
    path = rest.partition("?")[0]
    return scheme.startswith("sqlite") and not any(map(os.path.exists, (path, unquote(path))))


def _chosen(client: MlflowClient, study: str, study_id: str | None) -> Run:
    """The own run of the study of that name, and of that id where several bear the name."""
    names = {one.experiment_id: one.name for one in client.search_experiments()}
    found = _runs(client, list(names), f"tags.`{mirror.KIND}` = '{mirror.OF_STUDY}'")
    found = [run for run in found if run.data.tags.get(mirror.STUDY) == study]
    fitting = [run for run in found if study_id in (None, _owner(run))]
    if not found:
        raise StudyError(
            f"MLflow has no study {study!r}; run 'tcpa sync {study}' or correct the name."
        )
    if len(fitting) != 1:
        listed = "; ".join(_described(run, names[run.info.experiment_id]) for run in found)
        what = f"none with the id {study_id!r}" if study_id else f"{len(found)} of them"
        raise StudyError(
            f"MLflow has {what} under the name {study!r}; choose one by study_id=: {listed}."
        )
    return fitting[0]


def _described(run: Run, experiment: str) -> str:
    made = run.data.tags.get(mirror.CREATED, "by an earlier version")
    name = repr(_owner(run) or "without an id until 'tcpa sync' has run again")
    return f"{name} (made {made}, experiment {experiment!r})"


def _owner(run: Run) -> str | None:
    """Id of the study that a run is of; None: an earlier version wrote none."""
    return run.data.tags.get(mirror.STUDY_ID)


def _runs(client: MlflowClient, experiments: list[str], key: str = "") -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(experiments, key, max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _study(client: MlflowClient, parent: Run) -> Study:
    if mirror.STUDY_FILE not in {a.path for a in client.list_artifacts(parent.info.run_id)}:
        raise RecordError(
            "the study's run in MLflow lacks study.yaml (an older version mirrored it); run "
            "'tcpa sync' again."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(parent.info.run_id, mirror.STUDY_FILE, folder)
        return Study.read(Path(path).parent)


def _trial(client: MlflowClient, run: Run, history: Mapping[str, list[Metric]]) -> dict[str, Any]:
    tags = run.data.tags
    trial: dict[str, Any] = {"trial": tags[mirror.TRIAL], "status": "planned"}
    try:
        trial |= {
            "params": _params(client, run),
            "digest": tags[mirror.DIGEST],
            "point": tags[mirror.POINT],
            "seed": int(tags[mirror.SEED]),
            "labels": json.loads(tags[mirror.LABELS]),
            "origin": tags[mirror.ORIGIN],
            "deviation": json.loads(tags.get(mirror.DEVIATION, "[]")),
        }
        started = json.loads(tags.get(mirror.STARTED, "null"))
        result = json.loads(tags.get(mirror.RESULT, "null"))
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
    found: dict[str, Any] = {"status": tags[mirror.STATUS], "reason": tags.get(mirror.REASON, "")}
    found |= {key: result[key] for key in ("device", "warnings") if key in result}
    for key, metrics in history.items():
        name = _FIELDS.get(key)
        at_end = [m for m in metrics if m.step == 0]
        if name is not None and at_end:
            value = max(at_end, key=lambda m: m.timestamp).value
            found[name] = int(value) if name in _WHOLE else value
    return found


def _epochs(trial: str, history: Mapping[str, list[Metric]]) -> list[dict[str, Any]]:
    """One row per report of an epoch, in the order reported."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for key in mirror.EPOCH_METRICS:
        for metric in history.get(key, []):
            if metric.step > 0:
                at = (metric.timestamp, metric.step)
                row = rows.setdefault(at, {"trial": trial, "epoch": metric.step})
                row[key] = metric.value
    return [rows[at] for at in sorted(rows)]


def _params(client: MlflowClient, run: Run) -> dict[str, Any]:
    """Settings by dotted path; a tag holds 5,000 characters, longer ones are in the artifact."""
    try:
        return dict(json.loads(run.data.tags[mirror.PARAMS]))
    except ValueError:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, mirror.CONFIG_FILE, folder)
            return dict(json.loads(Path(path).read_text(encoding="utf-8")))
