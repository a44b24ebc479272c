"""The runs of one study in MLflow: found or made, and written so that a repeat changes nothing.

A run is made in one call with its tags, gets its parameters and metrics in another, its files, and
is ended last. A run that has ended therefore holds everything up to the journal line whose number
its tag `tcpa.n` gives, and is not read again.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag

from search.study.address import artifacts_of, sqlite_file
from search.study.folder import StudyDir
from search.tracking.experiment import ENDED, STATUS, Mirrored, StudyRuns, without_duplicates
from search.tracking.mlflow_internals import PARENT_RUN, REFUSALS, make_tables, relocate, upload
from search.tracking.own_run import OwnRun, origin_of
from search.tracking.run_values import (
    chain_of,
    metrics_of,
    milliseconds,
    params_of,
    tags_of,
    trial_tags,
)
from search.tracking.secrets import hide
from search.tracking.view import view_tag
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.errors import TcpaError
from tcpa_core.record import files
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import Ended, Event, Planned, Started, TrialEvent
from tcpa_core.record.state import StudyState


@dataclass(slots=True)
class _Run:
    """A run that is written to."""

    id: str
    artifacts: str
    """Where its files go."""
    status: str = "RUNNING"
    points: set[tuple[str, int, int]] | None = None
    """Name, step and time of what MLflow holds; None: nothing but what this writer wrote."""

    def missing(self, metrics: Sequence[Metric], client: MlflowClient) -> list[Metric]:
        """Metrics that MLflow lacks of a run that was found; from now on it has them."""
        if not self.points:
            names = client.get_run(self.id).data.metrics
            history = (client.get_metric_history(self.id, name) for name in names)
            self.points = {_place(metric) for metrics in history for metric in metrics}
        new = [metric for metric in metrics if _place(metric) not in self.points]
        self.points.update(map(_place, new))
        return new


class _Gone(Exception):
    """A run that was deleted by hand."""

    error_code = "RESOURCE_DOES_NOT_EXIST"


class RunWriter:
    """Turns journal events into calls of the MLflow client.

    Args:
        study_dir: Folder of the study.
        uri: MLflow tracking address.
        artifact_root: Where a new experiment keeps its artifacts; None: beside a database of this
            machine, or where the server decides.
        is_new: The study has no events from before, so MLflow has no runs of it.
        warn: Called with one line when something of the study is not mirrored as usual.
        verdict: Says what a finished study has shown, as of `OwnRun`.
    """

    def __init__(
        self,
        study_dir: Path,
        uri: str,
        artifact_root: Path | None,
        *,
        is_new: bool,
        warn: Callable[[str], None],
        verdict: Callable[[Path], str] = lambda study: "",
    ) -> None:
        self._study = Mirrored.of(study_dir)
        self._uri = uri
        self._warn = warn
        self._client = MlflowClient(tracking_uri=uri)
        database = sqlite_file(uri)
        if database is not None:
            # Before the client opens it: it would make tables, and read where the files were.
            make_tables(database)
            relocate(database)
            artifact_root = artifact_root or artifacts_of(database)
        self._of_study = StudyRuns(self._client, self._study, artifact_root, warn)
        self._runs: dict[str, _Run] = {}
        """Runs of trials that have not ended."""
        self._ended: dict[str, int] = {}
        """Number of the last event that an ended run of an earlier writer holds, by trial."""
        self._done: dict[str, int] = {}
        """The same within a batch, so that a repeat goes on where it failed."""
        self._is_unsure = False
        """A call failed, and may have been carried out all the same."""
        self._state = StudyState()
        space = _space_of(study_dir)
        self._results = _results_of(space, self._state)
        self.refused: set[str] = set()
        """Trials that MLflow does not take."""
        self.num_written = 0
        """How often a run was written to."""
        self._of_study.show(view_tag(space))
        self._origin = origin_of(self._study)
        run = self._of_study.own_run(uri, self._origin)
        self._own = OwnRun(self._client, uri, run, self._study, space, verdict, warn)
        if not is_new:
            self._look_around()

    def write(self, events: Iterable[Event], *, again: bool = False) -> None:
        """Mirror events, in their order, with as few calls per trial as possible.

        Args:
            events: With their numbers.
            again: The same events failed before: runs may exist that this writer does not know.
        """
        # All of a trial in one group: a call of MLflow takes longer than a trial's epoch may.
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
                # A refused trial is left out; all else may be cured by a repeat.
                if getattr(err, "error_code", None) not in REFUSALS:
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
        # A call whose answer was lost may have made a second run, which only a search finds.
        if self._is_unsure:
            self._look_around()
        self._own.complete(self._state, self._results, self._of_study.run_of)

    def _write_trial(self, trial: str, group: Sequence[TrialEvent], again: bool) -> None:
        planned = next((event for event in group if isinstance(event, Planned)), None)
        final: Ended | None = None
        for event in group:
            if isinstance(event, Started):
                final = None
            elif isinstance(event, Ended):
                final = event
        tags = tags_of(group)
        run = self._runs.get(trial)
        # Looked for only where it can exist: a trial planned just now has no run yet.
        if run is None and (again or planned is None):
            run = self._find(trial)
        if run is None:
            run, tags = self._create(planned, tags, trial), {}
        self._runs[trial] = run
        metrics = [metric for event in group for metric in metrics_of(event)]
        if run.points is not None:
            metrics = run.missing(metrics, self._client)
        self._client.log_batch(
            run.id,
            metrics=metrics,
            params=params_of(planned),
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._upload(run, trial, planned, is_last=final is not None)
        if final is not None:
            self._client.set_terminated(run.id, STATUS[final.kind], milliseconds(final))
        # A trial that had ended and is trained again after a resume.
        elif run.status != "RUNNING" and any(isinstance(event, Started) for event in group):
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"
        if final is not None or run.status in ENDED:
            del self._runs[trial]

    def _create(self, planned: Planned | None, tags: Mapping[str, str], trial: str) -> _Run:
        if planned is None:
            raise _Gone(f"the run of trial {trial} is gone")
        made = self._client.create_run(
            self._of_study.experiment,
            start_time=milliseconds(planned),
            tags={
                mirror.STUDY: self._study.name,
                mirror.STUDY_ID: self._study.id,
                **self._origin,
                **trial_tags(planned),
                PARENT_RUN: self._own.id,
                **tags,
            },
            run_name=f"{trial}-{chain_of(planned)}",
        )
        return _Run(made.info.run_id, made.info.artifact_uri)

    def _find(self, trial: str) -> _Run | None:
        """The run of a trial that this writer does not know."""
        found = self._of_study.run_of(trial)
        return None if found is None else _known(found)

    def _upload(self, run: _Run, trial: str, planned: Planned | None, *, is_last: bool) -> None:
        """Keep a trial's settings and its trained state as files of its run."""
        state = StudyDir(self._study.folder).trial_folder(trial) / files.BEST if is_last else None
        found = [state] if state and state.is_file() else []
        params = planned.params if planned else {}
        if not params and not found:
            return
        with tempfile.TemporaryDirectory() as folder:
            if params:
                path = Path(folder) / mirror.CONFIG_FILE
                path.write_text(json.dumps(params, indent=2), encoding="utf-8")
                found.insert(0, path)
            upload(found, run.artifacts, self._uri)

    def _refuse(self, trial: str, err: Exception) -> None:
        if not self.refused:
            why = (hide(str(err), self._uri).splitlines() or [type(err).__name__])[0][:200]
            self._warn(
                f"MLflow refuses trial {trial} ({why}); it is left out there, and kept in the "
                "journal."
            )
        self.refused.add(trial)

    def _look_around(self) -> None:
        """Learn which runs of ours there are, and delete those that a lost answer left twice."""
        current = {trial: run.id for trial, run in self._runs.items()}
        kept, surplus = without_duplicates(self._of_study, self._own.id, current)
        for run_id in surplus:
            self._client.delete_run(run_id)
        for trial, (last, run) in kept.items():
            if last >= 0:
                self._ended[trial] = last
            elif trial not in self._runs:
                self._runs[trial] = _known(run)


def _space_of(study_dir: Path) -> Space | None:
    """The space of a study; None: its description does not say what it is."""
    try:
        return StudyDir(study_dir).space()
    except TcpaError:
        return None


def _results_of(space: Space | None, state: StudyState) -> Results | None:
    """Where the points of a study stand; None: it selects none, or does not say what it is."""
    if space is None:
        return None
    selects = space.ablation is None or space.ablation.test == "winner"
    return Results.of(space, state) if selects else None


def _place(metric: Metric) -> tuple[str, int, int]:
    # with its time: an epoch trained again after a resume is another measurement
    return metric.key, metric.step, metric.timestamp


def _known(run: Run) -> _Run:
    return _Run(run.info.run_id, run.info.artifact_uri, run.info.status, set())


def _number(event: Event) -> int:
    return -1 if event.n is None else event.n
