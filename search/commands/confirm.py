"""tcpa confirm."""

from typing import Annotated

import typer

from search.options import (
    DEFAULT_ROOT,
    Before,
    Repeat,
    Root,
    Seeds,
    Storage,
    Study,
    Where,
    with_common,
)
from search.terminal import StudyConsole, leave


@with_common
def command(
    study: Study,
    where: Where,
    repeat: Repeat,
    before: Before,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    top: Annotated[int, typer.Option(help="Best points to confirm, 2 or more.")] = 3,
    seeds: Seeds = 5,
) -> None:
    """Let the best points of a search race on fresh seeds, and test the winner."""
    from search.study.working_copy import opened
    from search.verbs.confirm import confirm

    console, placement = StudyConsole(), where.placement()
    folder = opened(root, study, storage)
    leave(
        confirm(
            folder, console, top=top, seeds=seeds, placement=placement, repeat=repeat, before=before
        )
    )
