"""The runs of one study in MLflow: found or made, and written so that a repeat changes nothing.

A run is made in one call with its tags, gets its parameters and metrics in another, its files, and
is ended last. A run that has ended therefore holds everything up to the journal line whose number
its tag `tcpa.n` gives, and is not read again.
"""

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.entities import PagedList

from search.study.address import artifacts_of, has_tables, sqlite_file
from search.study.description import study_id
from search.study.folder import StudyDir
from search.tracking.secrets import hide
from spaces.reader import read_stored
from spaces.selection import Results
from tcpa_core.errors import TcpaError
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Planned,
    Started,
    Tested,
    TrialEvent,
    read_journal,
)
from tcpa_core.record.state import StudyState
from tcpa_core.record.values import EpochReport, TrialResult

MAX_VALUE = 6000
"""Characters of a parameter's value."""
MAX_TAG = 5000
"""Characters of a tag's value."""
PAGE = 1000
"""Runs that one search returns."""

_RUNS_FIRST = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open on the runs instead of on traces of language models."""
_ENDED = ("FINISHED", "FAILED")
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that a repeat does not cure, for example of a run that was deleted by hand."""


@dataclass(slots=True)
class _Run:
    """A run that is written to."""

    id: str
    artifacts: str
    """Where its files go."""
    status: str = "RUNNING"
    points: set[tuple[str, int, int]] | None = None
    """Name, step and time of what MLflow holds; None: nothing but what this writer wrote."""


class RunWriter:
    """Turns journal events into calls of the MLflow client.

    Args:
        study_dir: Folder of the study.
        uri: MLflow tracking address.
        artifact_root: Where a new experiment keeps its artifacts; None: beside a database of this
            machine, or where the server decides.
        is_new: The study has no events from before, so MLflow has no runs of it.
        warn: Called with one line when something of the study is not mirrored as usual.
    """

    def __init__(
        self,
        study_dir: Path,
        uri: str,
        artifact_root: Path | None,
        *,
        is_new: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._study_dir = study_dir
        self._uri = uri
        self._warn = warn
        self._client = MlflowClient(tracking_uri=uri)
        description = study_dir / "study.yaml"
        loaded = read_stored(description) if description.is_file() else {}
        document = {"name": study_dir.name, **(loaded if isinstance(loaded, dict) else {})}
        self._id = study_id(document)
        self._name, self._created = (str(document.get(key, "")) for key in ("name", "created"))
        database = sqlite_file(uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            relocate(database)
            artifact_root = artifact_root or artifacts_of(database)
        self._experiment = self._find_experiment(artifact_root)
        self._runs: dict[str, _Run] = {}
        """Runs of trials that have not ended."""
        self._ended: dict[str, int] = {}
        """Number of the last event that an ended run of an earlier writer holds, by trial."""
        self._done: dict[str, int] = {}
        """The same within a batch, so that a repeat goes on where it failed."""
        self._is_unsure = False
        """A call failed, and may have been carried out all the same."""
        self._state = StudyState()
        self._results = _results_of(study_dir, self._state)
        self.refused: set[str] = set()
        """Trials that MLflow does not take."""
        self.num_written = 0
        """How often a run was written to."""
        self._parent = self._own_run()
        if not is_new:
            self._look_around()

    def write(self, events: Iterable[Event], *, again: bool = False) -> None:
        """Mirror events, in their order, with as few calls per trial as possible.

        Args:
            events: With their numbers.
            again: The same events failed before: runs may exist that this writer does not know.
        """
        groups: dict[str, list[TrialEvent]] = {}
        for event in events:
            self._state.take(event)
            if not isinstance(event, TrialEvent) or event.trial in self.refused:
                continue
            trial = event.trial
            if _number(event) > max(self._ended.get(trial, -1), self._done.get(trial, -1)):
                groups.setdefault(trial, []).append(event)
        for trial, group in groups.items():
            try:
                self._write_trial(trial, group, again)
            except Exception as err:
                self._runs.pop(trial, None)
                if getattr(err, "error_code", None) not in _REFUSALS:
                    self._is_unsure = True
                    raise
                self._refuse(trial, err)
            self._done[trial] = _number(group[-1])
            self.num_written += 1
        self._done.clear()

    def finish(self) -> None:
        """Leave no run open: end the study's own, and those of trials that were not finished."""
        for run in self._runs.values():
            self._client.set_terminated(run.id, "KILLED")
        if self._is_unsure:
            self._look_around()
        self._mark_selected()
        is_whole = self._state.is_finished
        self._client.set_terminated(self._parent, "FINISHED" if is_whole else "KILLED")

    def _mark_selected(self) -> None:
        """Say in the study's own run which point is selected."""
        best = self._results.ranking().selected if self._results else None
        if self._results and best:
            found = f"{self._results.objective.metric} {best.text()}"
            tags = {mirror.SELECTED: ", ".join(best.trials), mirror.SELECTED_VALUE: found}
            self._client.log_batch(
                self._parent, tags=[RunTag(key, value[:MAX_TAG]) for key, value in tags.items()]
            )

    def _write_trial(self, trial: str, group: Sequence[TrialEvent], again: bool) -> None:
        planned = next((event for event in group if isinstance(event, Planned)), None)
        final: Ended | None = None
        for event in group:
            if isinstance(event, Started):
                final = None
            elif isinstance(event, Ended):
                final = event
        tags = _tags(group)
        run = self._runs.get(trial)
        if run is None and (again or planned is None):
            run = self._find(trial)
        if run is None:
            run, tags = self._create(trial, planned, tags), {}
        self._runs[trial] = run
        metrics = [metric for event in group for metric in _metrics(event)]
        if run.points is not None:
            metrics = self._missing(run, metrics)
        params = planned.params if planned else {}
        self._client.log_batch(
            run.id,
            metrics=metrics,
            params=[Param(path, str(value)[:MAX_VALUE]) for path, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._upload(run, trial, params, is_last=final is not None)
        if final is not None:
            status = "FAILED" if final.kind == "failed" else "FINISHED"
            self._client.set_terminated(run.id, status, end_time=_milliseconds(final))
        elif run.status != "RUNNING" and any(isinstance(event, Started) for event in group):
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"
        if final is not None or run.status in _ENDED:
            del self._runs[trial]

    def _create(self, trial: str, planned: Planned | None, tags: Mapping[str, str]) -> _Run:
        if planned is None:
            raise MlflowException(f"the run of trial {trial} is gone", RESOURCE_DOES_NOT_EXIST)
        params = planned.params
        chain = "+".join(params["methods"])
        all_tags = {
            mirror.STUDY: self._study_dir.name,
            mirror.STUDY_ID: self._id,
            mirror.TRIAL: trial,
            mirror.DIGEST: planned.digest,
            mirror.POINT: planned.point,
            mirror.SEED: str(planned.seed),
            mirror.METHODS: chain,
            mirror.ORIGIN: planned.origin,
            mirror.LABELS: json.dumps({"cells": list(planned.cells)})[:MAX_TAG],
            mirror.DEVIATION: json.dumps(list(planned.deviation))[:MAX_TAG],
            mirror.PARAMS: json.dumps(params)[:MAX_TAG],
            "mlflow.parentRunId": self._parent,
            **tags,
        }
        made = self._client.create_run(
            self._experiment,
            start_time=_milliseconds(planned),
            tags=all_tags,
            run_name=f"{trial}-{chain}",
        )
        return _Run(made.info.run_id, made.info.artifact_uri)

    def _find(self, trial: str) -> _Run | None:
        """The run of a trial that this writer does not know."""
        found = self._search(f"tags.`{mirror.TRIAL}` = '{trial}'", max_results=1)
        return _known(found[0]) if found else None

    def _missing(self, run: _Run, metrics: Sequence[Metric]) -> list[Metric]:
        """Metrics that MLflow lacks of a run that was found."""
        if not run.points:
            names = self._client.get_run(run.id).data.metrics
            history = (self._client.get_metric_history(run.id, name) for name in names)
            run.points = {(m.key, m.step, m.timestamp) for points in history for m in points}
        # with its time: an epoch trained again after a resume is another measurement
        new = [m for m in metrics if (m.key, m.step, m.timestamp) not in (run.points or ())]
        run.points.update((m.key, m.step, m.timestamp) for m in new)
        return new

    def _upload(self, run: _Run, trial: str, params: Mapping[str, Any], *, is_last: bool) -> None:
        """Keep a trial's settings and its trained state as files of its run."""
        state = self._study_dir / "checkpoints" / trial / "best.safetensors"
        has_state = is_last and state.is_file()
        if not params and not has_state:
            return
        files = get_artifact_repository(run.artifacts, tracking_uri=self._uri)
        if params:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / mirror.CONFIG_FILE
                path.write_text(json.dumps(params, indent=2), encoding="utf-8")
                files.log_artifact(str(path))
        if has_state:
            files.log_artifact(str(state))

    def _refuse(self, trial: str, err: Exception) -> None:
        if not self.refused:
            why = (hide(str(err), self._uri).splitlines() or [type(err).__name__])[0][:200]
            self._warn(
                f"MLflow refuses trial {trial} ({why}); it is left out there, and kept in the "
                "journal."
            )
        self.refused.add(trial)

    def _own_run(self) -> str:
        """The study's own run, which the runs of its trials are children of."""
        name = self._study_dir.name
        tags = {mirror.STUDY: name, mirror.STUDY_ID: self._id, mirror.CREATED: self._created,
                mirror.KIND: mirror.OF_STUDY}  # fmt: skip
        found = self._search(f"tags.`{mirror.KIND}` = '{mirror.OF_STUDY}'", max_results=1)
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING", name=name)
            self._client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        else:
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        description = self._study_dir / "study.yaml"
        if description.is_file():  # for reports made from MLflow
            files = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._uri)
            files.log_artifact(str(description))
        return str(run.info.run_id)

    def _look_around(self) -> None:
        """Learn which runs of ours there are, and delete those that a lost answer left twice."""
        kept: dict[str, tuple[int, Run]] = {}
        for run in _pages(self._search):
            trial = run.data.tags.get(mirror.TRIAL)
            if trial is None:
                if (
                    run.data.tags.get(mirror.KIND) == mirror.OF_STUDY
                    and run.info.run_id != self._parent
                ):
                    self._client.delete_run(run.info.run_id)
                continue
            holds = (
                int(run.data.tags.get(mirror.LAST_EVENT, -1)) if run.info.status in _ENDED else -1
            )
            ours = self._runs.get(trial)
            before = kept.get(trial)
            if before is None:
                kept[trial] = holds, run
            elif (holds, run.info.run_id == (ours and ours.id)) > (before[0], False):
                kept[trial] = holds, run
                self._client.delete_run(before[1].info.run_id)
            else:
                self._client.delete_run(run.info.run_id)
        for trial, (holds, run) in kept.items():
            if holds >= 0:
                self._ended[trial] = holds
            elif trial not in self._runs:
                self._runs[trial] = _known(run)

    def _search(self, key: str = "", **options: Any) -> PagedList[Run]:
        """Runs of this study alone, whoever else has runs in its experiment."""
        ours = f"tags.`{mirror.STUDY_ID}` = '{self._id}'"
        key = f"{ours} and {key}" if key else ours
        return self._client.search_runs([self._experiment], key, **options)

    def _find_experiment(self, artifact_root: Path | None) -> str:
        """The experiment of this study, by its full id: its name may be another study's, too."""
        found = self._experiment_of(self._id) or self._adopted()
        name = found.name if found else self._free_name()
        if name != self._study_dir.name and name.startswith(f"{self._study_dir.name}-"):
            self._warn(f"MLflow has another study of this name; this one is mirrored as {name!r}.")
        if found is None:
            location = f"{artifact_root.resolve().as_uri()}/{name}" if artifact_root else None
            tags = {**_RUNS_FIRST, mirror.STUDY_ID: self._id}
            return str(self._client.create_experiment(name, location, tags))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _experiment_of(self, mark: str) -> Experiment | None:
        key = f"tags.`{mirror.STUDY_ID}` = '{mark}'"
        found = self._client.search_experiments(ViewType.ALL, max_results=1, filter_string=key)
        return found[0] if found else None

    def _free_name(self) -> str:
        """The study's name; where another experiment has that, with as much of the id as needed."""
        name = self._study_dir.name
        names = (name, f"{name}-{self._id[:8]}", f"{name}-{self._id}")
        return next(n for n in names if self._client.get_experiment_by_name(n) is None)

    def _adopted(self) -> Experiment | None:
        """The experiment that an earlier version made for this study; its runs get our id.

        Its mark was the second in which the study was made, and it could be shared by several
        studies of a name. Ours are the runs of trials planned at the millisecond of our journal.
        """
        old = self._experiment_of(self._created) if self._created else None
        if old is None or not old.name.startswith(self._name):
            return None
        journal = self._study_dir / "journal.jsonl"
        ours = {
            (event.trial, event.digest, _milliseconds(event))
            for event in (read_journal(journal) if journal.exists() else ())
            if isinstance(event, Planned)
        }
        for run in _pages(partial(self._client.search_runs, [old.experiment_id])):
            tags = run.data.tags
            trial = tags.get(mirror.TRIAL), tags.get(mirror.DIGEST), run.info.start_time
            if mirror.STUDY_ID not in tags and (
                trial in ours or tags.get(mirror.KIND) == mirror.OF_STUDY
            ):
                self._client.set_tag(run.info.run_id, mirror.STUDY_ID, self._id)
        self._client.set_experiment_tag(old.experiment_id, mirror.STUDY_ID, self._id)
        return old


def relocate(database: Path) -> None:
    """Let a database of this machine find the files of its runs after its folder was moved.

    MLflow records their whole addresses and has no call that changes them. Only those that
    `RunWriter` gave are changed, where the files have come along or are not where they were.
    """
    if not has_tables(database):
        return
    here = artifacts_of(database.resolve())
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in found:
            folder = Path(unquote(urlsplit(old or "").path))
            new = here / folder.name
            if folder.parent.name != here.name or new == folder or not old.startswith("file:"):
                continue
            if folder.exists() and (not new.exists() or folder.samefile(new)):
                continue
            uri = new.as_uri()
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (uri, old),
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                " WHERE substr(artifact_uri, 1, ?) = ?",
                (uri, len(old) + 1, len(old) + 1, f"{old}/"),
            )


def _pages(search: Callable[..., PagedList[Run]]) -> Iterator[Run]:
    """Runs of a search, the oldest first."""
    token = None
    while True:
        page = search(max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _results_of(study_dir: Path, state: StudyState) -> Results | None:
    """Where the points of a study stand; None: it selects none, or does not say what it is."""
    try:
        space = StudyDir(study_dir).space()
    except TcpaError:
        return None
    selects = space.ablation is None or space.ablation.test == "winner"
    return Results.of(space, state) if selects else None


def _known(run: Run) -> _Run:
    return _Run(run.info.run_id, run.info.artifact_uri, run.info.status, set())


def _number(event: Event) -> int:
    return -1 if event.n is None else event.n


def _milliseconds(event: Event) -> int:
    return int(1000 * event.t)


def _metrics(event: Event) -> list[Metric]:
    """Numbers of an event: of an epoch at its step, of a final or "tested" event at step 0."""
    stamp, step, named = _milliseconds(event), 0, mirror.FINAL_METRICS
    values: EpochReport | TrialResult | Tested
    match event:
        case Epoch():
            values, step = event.report, event.report.epoch
            named = {name: name for name in mirror.EPOCH_METRICS}
        case Ended():
            values = event.result
        case Tested():
            values = event
        case _:
            return []
    found = {name: getattr(values, key, None) for key, name in named.items()}
    return [
        Metric(name, float(value), stamp, step)
        for name, value in found.items()
        if isinstance(value, int | float)
    ]


def _tags(group: Iterable[TrialEvent]) -> dict[str, str]:
    """What events of a trial say that is no number."""
    tags: dict[str, str] = {}
    for event in group:
        if isinstance(event, Started):
            tags[mirror.STARTED] = json.dumps({"device": event.device, "t": event.t})
            if event.preprocessing is not None:
                tags[mirror.PREPROCESSING] = json.dumps(event.preprocessing)[:MAX_TAG]
        elif isinstance(event, Ended):
            result = event.result
            rest = {"device": result.device, "warnings": result.warnings, "t": event.t}
            tags[mirror.STATUS] = result.status
            tags[mirror.RESULT] = json.dumps(rest)[:MAX_TAG]
            if result.reason:
                tags[mirror.REASON] = result.reason[:MAX_TAG]
        if isinstance(event, Tested | Ended):
            tags[mirror.LAST_EVENT] = str(event.n)
    return tags
