"""Complete a study's records in MLflow from its journal."""

from functools import partial
from pathlib import Path

from rich.console import Console

from search.study.folder import StudyDir
from search.tracking.logged_model import register_selected
from search.tracking.mirror import sync, tracking_of
from search.verbs.stages import Stages
from search.verbs.verdict import verdict_text
from tcpa_core.errors import StudyError


def sync_study(
    study: StudyDir,
    root: Path,
    tracking_uri: str | None,
    console: Console,
    register_as: str | None = None,
) -> None:
    """Write to MLflow whatever it lacks of a study, and say how much it holds.

    Args:
        register_as: Name in MLflow's registry for the model of the selected trial; None: none.

    Raises:
        StudyError: A driver runs the study and mirrors it itself, or the tracker does not answer.
        RecordError: The journal is damaged.
    """
    driver = study.driver()
    if driver is not None:
        raise StudyError(
            f"study {study.name!r} is run by pid {driver.pid} on {driver.host}, which mirrors it; "
            "sync it when that has ended."
        )
    uri, artifacts = tracking_of(study, root, tracking_uri)
    warn = partial(console.print, markup=False)
    with Stages("asking MLflow") as stages:
        count = sync(
            study.path,
            uri,
            artifact_root=artifacts,
            warn=warn,
            progress=stages.bytes,
            verdict=verdict_text,
        )
    console.print(f"MLflow holds {count} trials of {study.name}.", markup=False)
    if register_as:
        version = register_selected(study.path, uri, register_as)
        console.print(
            f"The selected trial is version {version} of the registered model {register_as}: "
            f"mlflow.pyfunc.load_model('models:/{register_as}/{version}')",
            markup=False,
            soft_wrap=True,
        )
