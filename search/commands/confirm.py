"""tcpa confirm."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Accept, Root, Seeds, Study, Where, with_common
from search.terminal import leave


@with_common
def command(
    study: Study,
    where: Where,
    root: Root = DEFAULT_ROOT,
    top: Annotated[int, typer.Option(min=2, help="Best points to confirm.")] = 3,
    seeds: Seeds = 5,
    accept: Accept = False,
) -> None:
    """Let the best points of a search race on fresh seeds, and test the winner."""
    from search.study.folder import StudyDir
    from search.verbs.confirm import confirm, confirmed_name
    from search.verbs.report import report_confirmed
    from search.verbs.start import check_place

    console, placement = Console(), where.placement()
    folder = StudyDir.open(root, study)
    check_place(placement)
    code = confirm(folder, console, top=top, seeds=seeds, placement=placement, accept=accept)
    report_confirmed(root / confirmed_name(study), console)
    leave(code)
