"""tcpa replay."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Accept, Root, Storage, Study
from search.terminal import leave


def command(
    study: Study,
    trial: Annotated[str, typer.Argument(help="Name of the trial: 00012, 12, or best.")],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    accept: Accept = False,
) -> None:
    """Run a stored trial again and say whether the numbers agree."""
    from search.study.working_copy import opened
    from search.verbs.replay import replay

    leave(replay(opened(root, study, storage), trial, Console(), accept=accept))
