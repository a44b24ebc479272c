"""tcpa report."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study


def command(
    study: Study,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    live: Annotated[bool, typer.Option("--live", help="Refresh it while the study runs.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between refreshes.")] = 10,
) -> None:
    """Gather a study into Parquet tables, plots and report.html."""
    from search.study.working_copy import opened

    folder, console = opened(root, study, storage), Console()
    from search.verbs.report import follow, report_text

    if live:
        follow(folder, lambda: report_text(folder), console, every)
    else:
        console.print(report_text(folder), markup=False, soft_wrap=True)
