"""tcpa sync."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study, Uri


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
) -> None:
    """Write to MLflow whatever it lacks of a study's journal."""
    from search.study.working_copy import opened
    from search.verbs.sync import sync_study

    sync_study(opened(root, study, storage), root, tracking_uri, Console(), register)
