"""tcpa bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study


def command(
    study: Study,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Zip file or folder; default: STUDY.zip.")
    ] = None,
    states: Annotated[
        Literal["none", "selected", "all"],
        typer.Option("--states", help="Trials whose trained states are in it."),
    ] = "none",
) -> None:
    """Seal a study in one file: space, journal, tables, environment, hashes."""
    from search.study.working_copy import opened
    from search.verbs.bundle import bundle

    bundle(opened(root, study, storage), out, states, Console())
