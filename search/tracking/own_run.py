"""The study's own run in MLflow: what the study is, and what it has come to.

Everything here is found before it is written, so that a repeat changes nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from search.study.folder import StudyDir
from search.tracking.experiment import Mirrored
from search.tracking.logged_model import log_trial
from search.tracking.mlflow_internals import COMMIT, NOTE, SOURCE, origin_tags
from search.tracking.run_values import MAX_VALUE
from search.tracking.study_files import keep_files
from search.tracking.study_result import (
    metrics_of_study,
    note_of_study,
    settings_of_selected,
    tags_of_study,
)
from search.tracking.view import searched
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.errors import TcpaError
from tcpa_core.record import files
from tcpa_core.record.state import StudyState, TrialState

DIGEST = 16
"""Characters of a data set's fingerprint that plans and reports show, and MLflow gets."""
_CONTEXT = "mlflow.data.context"
_STALE = (
    "Another setting was selected when the study went on. MLflow does not change parameters: those "
    "of this run are of the earlier one, the tags best.* of the present one."
)


class OwnRun:
    """The run of a study that those of its trials are children of.

    Args:
        client: Of the tracker.
        uri: Its address.
        run: The run, as `StudyRuns.own_run` made or found it.
        study: What is mirrored.
        space: Its space; None: it cannot be read.
        verdict: Says in plain sentences what a finished study has shown; it may take seconds.
        warn: Called with a line where something is left out.
    """

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        run: Run,
        study: Mirrored,
        space: Space | None,
        verdict: Callable[[Path], str],
        warn: Callable[[str], None],
    ) -> None:
        self._client = client
        self._uri = uri
        self._study = study
        self._space = space
        self._verdict = verdict
        self._warn = warn
        self.id: str = run.info.run_id
        held = {one.dataset.digest for one in run.inputs.dataset_inputs} if run.inputs else set()
        new = [one for one in datasets_of(study.data) if one.dataset.digest not in held]
        if new:
            client.log_inputs(self.id, new)

    def complete(
        self,
        state: StudyState,
        results: Results | None,
        run_of: Callable[[str], Run | None],
    ) -> None:
        """Write what the study has come to, and end the run as the study has ended.

        Args:
            run_of: The run of a trial; None: MLflow has none.
        """
        settings = settings_of_selected(results, searched(self._space))
        verdict = self._verdict_of_finished() if state.is_finished else ""
        note = note_of_study(state, results, settings, verdict)
        run = self._client.get_run(self.id)
        params: Mapping[str, str] = {}
        if state.is_finished:
            params = {path: str(value)[:MAX_VALUE] for path, value in settings.items()}
            if any(run.data.params.get(path, value) != value for path, value in params.items()):
                note = f"{note}\n\n{_STALE}"
        self._client.log_batch(
            self.id,
            metrics=_new_metrics(run, metrics_of_study(state, results), state),
            params=[Param(k, v) for k, v in params.items() if k not in run.data.params],
            tags=_tags({**tags_of_study(state, results, settings), NOTE: note}),
        )
        keep_files(self._client, self._uri, run, self._study.folder, self._warn)
        selected = results.ranking().selected if results and state.is_finished else None
        if selected is not None:
            self._log_model(run, state.trials[selected.trials[0]], run_of)
        self._client.set_terminated(self.id, "FINISHED" if state.is_finished else "KILLED")

    def _log_model(self, own: Run, trial: TrialState, run_of: Callable[[str], Run | None]) -> None:
        run = run_of(trial.planned.trial)
        if run is not None:  # refused, or deleted by hand
            folder = StudyDir(self._study.folder).trial_folder(trial.planned.trial)
            log_trial(self._client, own, trial, run, folder / files.BEST, self._warn)

    def _verdict_of_finished(self) -> str:
        try:
            return self._verdict(self._study.folder)
        except (TcpaError, OSError, ValueError, LookupError, ArithmeticError) as err:
            self._warn(f"MLflow gets no verdict on {self._study.name} ({err}).")
            return ""


def origin_of(study: Mirrored) -> dict[str, str]:
    """Tags that say who runs a study, with which program, and from which commit it was made."""
    program = {SOURCE: f"tcpa {'ablate' if study.kind == 'ablation' else 'search'}"}
    commit = {COMMIT: study.commit} if study.commit else {}
    return {**origin_tags(), **program, **commit}


def datasets_of(recorded: Sequence[Mapping[str, Any]]) -> list[DatasetInput]:
    """Data sets of a study.yaml as MLflow takes them, with our fingerprint as their digest."""
    return [
        DatasetInput(_dataset(one), [InputTag(_CONTEXT, "training")])
        for one in recorded
        if one.get("name") and one.get("fingerprint")
    ]


def _dataset(one: Mapping[str, Any]) -> Dataset:
    settings = {k: v for k, v in (one.get("settings") or {}).items() if v is not None}
    profile = {
        "images": one.get("images"),
        "classes": one.get("classes"),
        "fingerprint": one["fingerprint"],
        "notes": one.get("notes"),
    }
    known = {key: value for key, value in profile.items() if value}
    return Dataset(
        name=str(one["name"]),
        digest=str(one["fingerprint"])[:DIGEST],
        source_type="local",
        source=json.dumps(settings),
        profile=json.dumps(known),
    )


def _new_metrics(run: Run, values: Mapping[str, float], state: StudyState) -> list[Metric]:
    """Those that the run does not have yet, at the time of the study's last event."""
    stamp = int(1000 * (state.last.t if state.last else 0.0))
    held = run.data.metrics
    return [Metric(k, v, stamp, 0) for k, v in values.items() if held.get(k) != v]


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in values.items()]
