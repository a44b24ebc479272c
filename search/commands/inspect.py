"""tcpa inspect."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Accept, Root, Storage, Study


def command(
    study: Study,
    trials: Annotated[list[str], typer.Argument(help="Trials, for example 12 best OTHER_STUDY/7.")],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    images: Annotated[int, typer.Option(min=1, help="Val images to look at.")] = 200,
    accept: Accept = False,
) -> None:
    """Draw what trained trials attend to: maps, prompts used, kept mass, rank, t-SNE."""
    from reports.inspection_report import write_inspection
    from search.study.working_copy import opened
    from search.verbs.inspect import look_into

    folder, console = opened(root, study, storage), Console()
    looks = look_into(folder, trials, console, images=images, accept=accept)
    for line in write_inspection(looks, folder.path):
        console.print(line, markup=False, soft_wrap=True)
