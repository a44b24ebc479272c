"""tcpa confirm."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Accept, Address, Root, Seeds, Study
from search.terminal import leave


def command(
    study: Study,
    root: Root = DEFAULT_ROOT,
    top: Annotated[int, typer.Option(min=2, help="Best points to confirm.")] = 3,
    seeds: Seeds = 5,
    address: Address = None,
    accept: Accept = False,
) -> None:
    """Let the best points of a search race on fresh seeds, and test the winner."""
    from search.study.folder import StudyDir
    from search.verbs.confirm import confirm, confirmed_name
    from search.verbs.report import report_confirmed

    console = Console()
    folder = StudyDir.open(root, study)
    code = confirm(folder, console, top=top, seeds=seeds, address=address, accept=accept)
    report_confirmed(root / confirmed_name(study), console)
    leave(code)
