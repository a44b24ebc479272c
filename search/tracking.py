"""MLflow as a mirror of the journal: it may fail, lag or be rebuilt, and never stops a trial.

Runs are found by tag before they are made, and metrics are read back before a replay writes
them, so mirroring twice changes nothing. One background thread of the driver is the only writer.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from search.redact import hide, without_secrets
from tcpa_core.errors import StudyError
from tcpa_core.record import FINAL_KINDS, EpochReport, TrialResult, read_journal

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

MAX_METRICS = 1000
"""MLflow's limit for one batch."""
MAX_PARAMS = 100
MAX_VALUE = 6000
"""Characters of a parameter's value."""
MAX_TAG = 5000
"""Characters of a tag's value."""
RETRY_S = 5.0
BATCH_S = 1.0

EPOCH_METRICS = tuple(f.name for f in fields(EpochReport) if f.name != "epoch")
FINAL_METRICS = tuple(
    f.name
    for f in fields(TrialResult)
    if f.name
    not in ("status", "reason", "device", "warnings", "duration_s", "val_loss", "val_accuracy")
)
SELECTED = {"val_accuracy": "selected_val_accuracy", "val_loss": "selected_val_loss",
            "duration_s": "total_duration_s"}  # fmt: skip
"""Final values whose plain names are those of the per-epoch series."""

_RUNS_FIRST = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open on the runs instead of on traces of language models."""

Event = Mapping[str, Any]


def default_uri(root: Path) -> str:
    """The tracking database of a studies folder."""
    return f"sqlite:///{root.resolve()}/mlflow.db"


def check_tracker(uri: str) -> None:
    """Make sure that a tracking server or database answers.

    Raises:
        StudyError: It does not, or the address is of no known kind.
    """
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as err:  # the client raises whatever its store's driver raises
        text = hide(str(err), uri).splitlines()
        first = text[0][:200].rstrip(". ") if text else type(err).__name__
        raise StudyError(
            f"--tracking-uri: MLflow does not answer at {without_secrets(uri)!r} ({first}); "
            "start the server, correct the address, or leave it out for a local database."
        ) from err


class Mirror:
    """Follows a study's events and writes them to MLflow.

    Args:
        study_dir: Folder of the study; its checkpoints become artifacts.
        uri: MLflow tracking address.
        artifact_root: Where a new experiment keeps its artifacts; None: the server decides.
        warn: Called with one line when the tracker goes away or comes back.
    """

    def __init__(
        self,
        study_dir: Path,
        uri: str,
        *,
        artifact_root: Path | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._study_dir = study_dir
        self._uri = uri
        self._artifact_root = artifact_root
        self._warn = warn
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._writer: _Writer | None = None
        self._closing = threading.Event()
        self._down = False
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Take an event; returns at once and never raises."""
        self._queue.put(event)

    def close(self, timeout_s: float = 60.0) -> bool:
        """Write what is left.

        Returns:
            False when the tracker did not take everything in time; `sync` completes it later.
        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._down

    def _work(self) -> None:
        while True:
            batch, ended = self._next_batch()
            while batch:
                try:
                    if self._writer is None:
                        self._writer = _Writer(self._study_dir, self._uri, self._artifact_root)
                    self._writer.write(batch)
                except Exception as err:  # whatever the store's driver raises: it may come back
                    self._set_down(True, err)
                    self._writer = None
                    if self._closing.is_set():
                        return
                    time.sleep(RETRY_S)
                    # the failed batch may be half written: go on as a replay does
                    batch = _merge(batch)
                    continue
                self._set_down(False, None)
                break
            if ended:
                self._finish()
                return

    def _next_batch(self) -> tuple[list[Event], bool]:
        """Events that came within `BATCH_S`, and whether the last one was the end."""
        batch: list[Event] = []
        deadline = None
        while True:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = self._queue.get(timeout=wait)
            except queue.Empty:
                return batch, False
            if event is None:
                return batch, True
            batch.append(event)
            deadline = deadline or time.monotonic() + BATCH_S

    def _finish(self) -> None:
        try:
            if self._writer is not None:
                self._writer.finish()
        except Exception as err:
            self._set_down(True, err)

    def _set_down(self, down: bool, err: Exception | None) -> None:
        if down and not self._down:
            self._warn(
                f"MLflow does not answer at {without_secrets(self._uri)} ({type(err).__name__}); "
                "training goes on, the backlog is written when it returns."
            )
        if self._down and not down:
            self._warn("MLflow answers again.")
        self._down = down


def sync(study_dir: Path, uri: str, *, artifact_root: Path | None = None) -> int:
    """Write everything of a study's journal that MLflow lacks.

    Returns:
        The number of trials in the journal.

    Raises:
        StudyError: The tracker does not answer.
    """
    check_tracker(uri)
    events = list(read_journal(study_dir / "journal.jsonl"))
    writer = _Writer(study_dir, uri, artifact_root)
    writer.write(_merge(events))
    writer.finish()
    return sum(event["kind"] == "planned" for event in events)


def _merge(events: Iterable[Event]) -> list[Event]:
    """Order a backlog by trial, so that each run is written in one go."""
    return sorted(events, key=lambda event: str(event.get("trial", "")))


class _Writer:
    """Turns events into calls of the MLflow client."""

    def __init__(self, study_dir: Path, uri: str, artifact_root: Path | None) -> None:
        self._study_dir = study_dir
        self._name = study_dir.name
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = self._find_experiment(artifact_root)
        self._runs: dict[str, str] = {}
        self._params: dict[str, Mapping[str, Any]] = {}
        self._written: dict[str, set[tuple[str, int, int]]] = {}
        self._parent = self._find_run("", {"tcpa.kind": "study"}, self._name)
        self._describe()

    def write(self, events: Iterable[Event]) -> None:
        """Mirror events; each trial's metrics go out in as few calls as possible."""
        metrics: dict[str, list[Metric]] = {}
        finals = []
        for event in events:
            kind = event["kind"]
            if kind == "planned":
                self._plan(event)
            elif kind == "epoch":
                metrics.setdefault(event["trial"], []).extend(_epoch_metrics(event))
            elif kind == "started":
                self._start(event)
            elif kind == "tested":
                metrics.setdefault(event["trial"], []).extend(_final_metrics(event))
            elif kind in FINAL_KINDS:
                metrics.setdefault(event["trial"], []).extend(_final_metrics(event))
                finals.append(event)
        for trial, values in metrics.items():
            self._log(trial, values)
        for event in finals:
            self._end(event)

    def finish(self) -> None:
        """Close the study's own run."""
        self._client.set_terminated(self._parent, "FINISHED")

    def _plan(self, event: Event) -> None:
        trial = event["trial"]
        params = self._params[trial] = event["params"]
        tags = {
            "tcpa.trial": trial,
            "tcpa.digest": event["digest"],
            "tcpa.point": event["point"],
            "tcpa.seed": str(event["seed"]),
            "tcpa.methods": "+".join(params["methods"]),
            "tcpa.origin": event["origin"],
            "tcpa.labels": json.dumps(event["labels"])[:MAX_TAG],
            "tcpa.params": json.dumps(params)[:MAX_TAG],
            "mlflow.parentRunId": self._parent,
        }
        run = self._find_run(trial, tags, f"{trial}-{tags['tcpa.methods']}")
        logged = [Param(path, str(value)[:MAX_VALUE]) for path, value in params.items()]
        for start in range(0, len(logged), MAX_PARAMS):
            self._client.log_batch(run, params=logged[start : start + MAX_PARAMS])

    def _describe(self) -> None:
        """Keep the study's own description beside its run, for reports made from MLflow."""
        path = self._study_dir / "study.yaml"
        present = {artifact.path for artifact in self._client.list_artifacts(self._parent)}
        if path.is_file() and path.name not in present:
            self._client.log_artifact(self._parent, str(path))

    def _start(self, event: Event) -> None:
        about = {"device": event.get("device"), "t": event.get("t")}
        self._client.set_tag(self._run_of(event["trial"]), "tcpa.started", json.dumps(about))

    def _log(self, trial: str, metrics: list[Metric]) -> None:
        run = self._run_of(trial)
        written = self._written[run]
        # with its time: an epoch trained again after a resume is another measurement
        new = [m for m in metrics if (m.key, m.step, m.timestamp) not in written]
        for start in range(0, len(new), MAX_METRICS):
            self._client.log_batch(run, metrics=new[start : start + MAX_METRICS])
        written.update((m.key, m.step, m.timestamp) for m in new)

    def _end(self, event: Event) -> None:
        run = self._run_of(event["trial"])
        status = event["status"]
        self._client.set_tag(run, "tcpa.status", status)
        self._client.set_tag(run, "tcpa.result", json.dumps(_beside_metrics(event))[:MAX_TAG])
        if event.get("reason"):
            self._client.set_tag(run, "tcpa.reason", event["reason"][:MAX_TAG])
        self._artifacts(run, event["trial"])
        self._client.set_terminated(
            run, "FAILED" if status == "failed" else "FINISHED", end_time=_milliseconds(event)
        )
        del self._written[run]

    def _artifacts(self, run: str, trial: str) -> None:
        present = {artifact.path for artifact in self._client.list_artifacts(run)}
        state = self._study_dir / "checkpoints" / trial / "best.safetensors"
        if state.is_file() and state.name not in present:
            self._client.log_artifact(run, str(state))
        if "config.json" not in present:
            self._client.log_dict(run, self._params.get(trial, {}), "config.json")

    def _run_of(self, trial: str) -> str:
        if trial not in self._runs:
            self._find_run(trial, {"tcpa.trial": trial}, trial)
        run = self._runs[trial]
        if run not in self._written:  # it has ended; only the test comes later
            self._written[run] = self._points(self._client.get_run(run))
        return run

    def _points(self, run: Run) -> set[tuple[str, int, int]]:
        """Name, step and time of every metric that MLflow holds of a run."""
        history = (self._client.get_metric_history(run.info.run_id, k) for k in run.data.metrics)
        return {(m.key, m.step, m.timestamp) for metrics in history for m in metrics}

    def _find_run(self, trial: str, tags: Mapping[str, str], name: str) -> str:
        """The run of a trial ("" is the study's own), made if it does not exist yet."""
        if trial in self._runs:
            return self._runs[trial]
        key = f"tags.`tcpa.trial` = '{trial}'" if trial else "tags.`tcpa.kind` = 'study'"
        found = self._client.search_runs([self._experiment], key, max_results=1)
        if found:
            run = found[0].info.run_id
            self._written[run] = self._points(found[0])
            if not trial:
                self._client.update_run(run, status="RUNNING")
        else:
            all_tags = {"tcpa.study": self._name, **tags}
            run = self._client.create_run(
                self._experiment, run_name=name, tags=all_tags
            ).info.run_id
            self._written[run] = set()
        self._runs[trial] = run
        return run

    def _find_experiment(self, artifact_root: Path | None) -> str:
        found = self._client.get_experiment_by_name(self._name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = f"{artifact_root.resolve().as_uri()}/{self._name}" if artifact_root else None
        try:
            return str(
                self._client.create_experiment(
                    self._name, artifact_location=location, tags=_RUNS_FIRST
                )
            )
        except MlflowException:  # another writer was faster
            again = self._client.get_experiment_by_name(self._name)
            if again is None:
                raise
            return str(again.experiment_id)


def _beside_metrics(event: Event) -> dict[str, Any]:
    """What a final event says that is no number."""
    kept = ("device", "warnings", "source_study", "source_trial", "t")
    return {key: event[key] for key in kept if key in event}


def _milliseconds(event: Event) -> int:
    return int(1000 * event.get("t", time.time()))


def _epoch_metrics(event: Event) -> list[Metric]:
    stamp, step = _milliseconds(event), int(event["epoch"])
    return [Metric(k, float(event[k]), stamp, step) for k in EPOCH_METRICS if k in event]


def _final_metrics(event: Event) -> list[Metric]:
    """Numbers of a final or "tested" event, at step 0."""
    stamp = _milliseconds(event)
    named = {k: k for k in FINAL_METRICS} | SELECTED
    return [
        Metric(name, float(event[key]), stamp, 0)
        for key, name in named.items()
        if isinstance(event.get(key), int | float)
    ]
