"""The selected trial as a model of MLflow that `mlflow.pyfunc.load_model` loads.

It holds the trial's tensors as they were saved and the code that reads them. No backbone is loaded
to log it: a driver without the weights can do it, and it takes no time of a search.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient, models, pyfunc, types
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.exceptions import MlflowException

from search.tracking import mlflow_internals
from search.tracking.experiment import Mirrored
from search.tracking.run_values import MAX_VALUE
from tcpa_core import __version__
from tcpa_core.command import DISTRIBUTION
from tcpa_core.errors import StudyError
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.scores import fields_of
from tcpa_core.record.state import TrialState

CODE = Path(__file__).with_name("served_trial.py")
"""The model's code; MLflow copies the file."""
MOST_BYTES = 2 << 30
"""A larger trial is a file of its run alone."""
_READY = "READY"


def log_trial(
    client: MlflowClient,
    own: Run,
    trial: TrialState,
    run: Run,
    checkpoint: Path,
    warn: Callable[[str], None],
) -> LoggedModel | None:
    """Log a trial as a model, unless MLflow has it.

    Args:
        own: The study's own run.
        run: The trial's; both name the model as what they made.
        checkpoint: best.safetensors of the trial.
        warn: Called with a line where MLflow does not take it.

    Returns:
        The model; None: there is none, and a line has said why, or the trial left no checkpoint.
    """
    if not checkpoint.is_file():
        return None
    if checkpoint.stat().st_size > MOST_BYTES:
        warn(f"MLflow gets no model of trial {trial.planned.trial}: above {MOST_BYTES >> 30} GB.")
        return None
    try:
        return _logged(client, own, trial, run, checkpoint)
    except MlflowException as err:
        # a server before MLflow 3 has no logged models; all else may be cured by a repeat
        if err.error_code not in mlflow_internals.NOT_OFFERED:
            raise
        warn(f"MLflow takes no models ({err.error_code}); the trial's state is a file of its run.")
        return None


def register_selected(study: Path, uri: str, name: str) -> str:
    """Register the model of a study's selected trial under a name, unless it is there.

    Args:
        study: Folder of the study.
        uri: MLflow tracking address.

    Returns:
        The version under which the name has it.

    Raises:
        StudyError: MLflow has no model of the study, or does not take the name.
    """
    client = MlflowClient(tracking_uri=uri)
    identity = Mirrored.of(study).id
    mine = f"tags.`{mirror.STUDY_ID}` = '{identity}'"
    experiments = client.search_experiments(filter_string=mine, max_results=1)
    found = [one for experiment in experiments for one in _models(client, experiment.experiment_id)]
    ready = [one for one in found if one.tags.get(mirror.STUDY_ID) == identity]
    if not ready:
        raise StudyError(
            f"--register: MLflow has no model of {study.name!r}; a search has one once it is "
            "finished and its selected trial has left a checkpoint."
        )
    model = max(ready, key=lambda one: one.creation_timestamp)
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(mirror.MODEL) == model.model_id:
                return str(version.version)
        made = client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags={mirror.MODEL: model.model_id},
            model_id=model.model_id,
        )
    except MlflowException as err:
        first = str(err).splitlines()[0]
        raise StudyError(f"--register: MLflow does not take the name {name!r} ({first}).") from err
    return str(made.version)


def _logged(
    client: MlflowClient, own: Run, trial: TrialState, run: Run, checkpoint: Path
) -> LoggedModel:
    planned = trial.planned
    tags = {
        mirror.STUDY_ID: own.data.tags[mirror.STUDY_ID],
        mirror.TRIAL: planned.trial,
        mirror.DIGEST: planned.digest,
    }
    model = next(
        (one for one in _models(client, own.info.experiment_id)
         if tags.items() <= one.tags.items()), None
    )  # fmt: skip
    if model is None:
        model = client.create_logged_model(
            own.info.experiment_id,
            f"{own.data.tags[mirror.STUDY]}-{planned.trial}",
            source_run_id=run.info.run_id,
            tags=tags,
            params={path: str(value)[:MAX_VALUE] for path, value in planned.params.items()},
            model_type="tcpa",
        )
    if model.status != _READY:  # made just now, or by a driver that was killed before the rest
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            _save(path, checkpoint, model, run.info.run_id)
            client.log_model_artifacts(model.model_id, str(path))
        for one in (run, own):
            made = one.outputs.model_outputs if one.outputs else []
            if model.model_id not in {output.model_id for output in made}:  # refused twice
                client.log_outputs(one.info.run_id, [LoggedModelOutput(model.model_id, 0)])
        _log_numbers(client, trial, run, model)
        model = client.finalize_logged_model(model.model_id, _READY)
    return model


def _save(path: Path, checkpoint: Path, model: LoggedModel, run: str) -> None:
    """Write the folder that MLflow loads: code, tensors, and what they need."""
    # Without a name any table of one column will do, a list and a single path, too.
    given = types.Schema([types.ColSpec("string")])
    texts = [types.ColSpec("string", name) for name in ("path", "label")]
    answer = types.Schema([*texts, types.ColSpec("double", "probability")])
    pyfunc.save_model(
        path,
        python_model=str(CODE),
        artifacts={_ARTIFACT: str(checkpoint)},
        model_config={"weights": None, "device": "cpu"},
        pip_requirements=[f"{DISTRIBUTION}=={__version__}"],
        signature=models.ModelSignature(given, answer),
        mlflow_model=models.Model(run_id=run, model_id=model.model_id),
    )


_ARTIFACT = "trial"  # as served_trial.py asks for it


def _log_numbers(client: MlflowClient, trial: TrialState, run: Run, model: LoggedModel) -> None:
    """Its scores as numbers of the model; the run has them already."""
    for name in fields_of(trial.score):
        is_test = name.startswith("test_")
        value = trial.on_test(name) if is_test else trial.value(name)
        event = (trial.tested or trial.ended) if is_test else trial.ended
        if value is not None and event is not None:
            client.log_metric(
                run.info.run_id, name, value, int(1000 * event.t), 0, model_id=model.model_id
            )


def _models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    """Those of an experiment; a study logs one for each time that its selection changed."""
    return list(client.search_logged_models([experiment]))
