"""tcpa sync."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study, Uri
from tcpa_core.errors import StudyError


def command(
    study: Study,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    tracking_uri: Uri = None,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Register the selected trial under this name in MLflow's registry."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write event files for TensorBoard there, and nothing to MLflow."
        ),
    ] = None,
) -> None:
    """Write to MLflow whatever it lacks of a study's journal."""
    from search.study.working_copy import opened

    if tensorboard is not None:
        try:
            from search.verbs.event_files import write_events
        except ImportError as err:
            raise StudyError(
                "--tensorboard needs tensorboardX: pip install 'tcpa-search[tensorboard]'."
            ) from err
        write_events(opened(root, study, storage), tensorboard, Console())
        return
    from search.verbs.sync import sync_study

    sync_study(opened(root, study, storage), root, tracking_uri, Console(), register)
