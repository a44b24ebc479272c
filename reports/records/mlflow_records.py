"""From the MLflow mirror of a study to the same records as from its journal."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from reports.records.epochs import EPOCH_SCHEMA, in_order
from reports.records.records import Records
from reports.records.study import Study
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import Event, event_of
from tcpa_core.record.state import StudyState
from tcpa_core.record.values import TrialResult

History = Mapping[str, Sequence[Metric]]
"""All points of a run's metrics, by name."""
EpochRow = dict[str, str | float]
_FIELDS = {
    **{metric: name for name, metric in mirror.FINAL_METRICS.items()},
    **mirror.OLD_FINAL_METRICS,
}
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
    described = _study(client, parent)
    state = StudyState()
    rows: list[EpochRow] = []
    of_trials = [
        run
        for run in _runs(client, [parent.info.experiment_id])
        if mirror.TRIAL in run.data.tags and _owner(run) == _owner(parent)
    ]
    for run in sorted(of_trials, key=_order):
        history = {k: client.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
        for event in _events(client, run, history):
            state.take(event)
        rows += _epochs(run.data.tags[mirror.TRIAL], history)
    reported = pa.Table.from_pylist(rows, schema=EPOCH_SCHEMA)
    epochs = in_order(reported, state.trials, f"study {study!r} in MLflow")
    return Records.of(described, state.trials, epochs, len(reported) - len(epochs))


def _order(run: Run) -> tuple[int, str]:
    """MLflow keeps no order; names of trials are numbers in the order planned, and those that begin
    from the state of another one come after it."""
    parent = json.loads(run.data.tags.get(mirror.FROM, "null"))
    return parent["epoch"] if parent else 0, str(run.data.tags[mirror.TRIAL])


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


def _events(client: MlflowClient, run: Run, history: History) -> list[Event]:
    """The events of a trial but its epochs, as far as its run has them.

    Raises:
        RecordError: A tag is missing or cut off.
    """
    tags = run.data.tags
    trial = tags[mirror.TRIAL]
    try:
        planned = {
            "kind": "planned",
            "trial": trial,
            "params": _params(client, run),
            "digest": tags[mirror.DIGEST],
            "point": tags[mirror.POINT],
            "origin": tags[mirror.ORIGIN],
            "labels": json.loads(tags[mirror.LABELS]),
            "deviation": json.loads(tags.get(mirror.DEVIATION, "[]")),
            "draw": {},  # MLflow does not have it, and reports do not need it
        }
        if mirror.FROM in tags:
            planned["from"] = json.loads(tags[mirror.FROM])
        found = [event_of(planned)]
        started = json.loads(tags.get(mirror.STARTED, "null"))
        result = json.loads(tags.get(mirror.RESULT, "null"))
        reused = json.loads(tags.get(mirror.REUSED, "null"))
        if reused and not started:
            found.append(event_of({"kind": "reused", "trial": trial, **reused}))
        if started:
            device = started["device"] or ""
            found.append(event_of({"kind": "started", "trial": trial, "device": device}))
        # A trial that was started again after its result has none: the tags of both are there.
        if result and not (started and (started["t"] or 0) > (result.get("t") or 0)):
            texts = {key: result[key] for key in ("device", "warnings") if key in result}
            status, reason = tags[mirror.STATUS], tags.get(mirror.REASON, "")
            about = {"kind": status, "trial": trial, "status": status, "reason": reason}
            found.append(event_of({**about, **texts, **dict(_outcome(history))}))
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as err:
        raise RecordError(
            f"MLflow run {run.info.run_id} of trial {trial!r} lacks a tag of the mirror, "
            f"or it was cut off ({err}); make the report from the journal."
        ) from err
    return found


def _outcome(history: History) -> Iterator[tuple[str, float]]:
    """Fields of TrialResult from the metrics at step 0; of several points the last."""
    for metric, points in history.items():
        at_end = [point for point in points if point.step == 0]
        if metric in _FIELDS and at_end:
            name, value = _FIELDS[metric], max(at_end, key=lambda point: point.timestamp).value
            yield name, int(value) if name in _WHOLE else value


def _epochs(trial: str, history: History) -> list[EpochRow]:
    """One row per report of an epoch, in the order reported."""
    # By time as well: an epoch trained again after a resume is another report.
    rows: dict[tuple[int, int], EpochRow] = {}
    for key, name in mirror.EPOCH_METRICS.items():
        # An earlier version gave the epochs the plain names; a run that a later one completed has
        # all of them under both.
        for metric in history.get(name, history.get(key, [])):
            if metric.step > 0:
                at = (metric.timestamp, metric.step)
                row = rows.setdefault(at, {"trial": trial, "epoch": metric.step})
                row[key] = metric.value
    return [rows[at] for at in sorted(rows)]


def _params(client: MlflowClient, run: Run) -> dict[str, object]:
    """Settings by dotted path; a tag holds 5,000 characters, longer ones are in the artifact."""
    try:
        return dict(json.loads(run.data.tags[mirror.PARAMS]))
    except ValueError:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, mirror.CONFIG_FILE, folder)
            return dict(json.loads(Path(path).read_text(encoding="utf-8")))
