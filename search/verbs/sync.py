"""Complete a study's records in MLflow from its journal."""

from functools import partial
from pathlib import Path

from rich.console import Console

from search.study.folder import StudyDir
from search.tracking.mirror import sync, tracking_of
from search.verbs.stages import Stages
from tcpa_core.errors import StudyError


def sync_study(study: StudyDir, root: Path, tracking_uri: str | None, console: Console) -> None:
    """Write to MLflow whatever it lacks of a study, and say how much it holds.

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
        count = sync(study.path, uri, artifact_root=artifacts, warn=warn, progress=stages.bytes)
    console.print(f"MLflow holds {count} trials of {study.name}.", markup=False)
