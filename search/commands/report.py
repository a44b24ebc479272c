"""tcpa report."""

from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage

Studies = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY...",
        help="Name of a study or bench below --root; several studies stand side by side.",
    ),
]


def command(
    studies: Studies,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    live: Annotated[bool, typer.Option("--live", help="Refresh it while the study runs.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between refreshes.")] = 10,
) -> None:
    """Gather a study into Parquet tables, plots, report.html; several or a bench into a table."""
    from search.study.bench_folder import found_bench

    if len(studies) == 1 and not live and (bench := found_bench(root, studies[0])):
        from search.verbs.report import bench_text

        Console().print(bench_text(bench), markup=False, soft_wrap=True)
        return
    from search.study.working_copy import opened

    folders, console = [opened(root, name, storage) for name in studies], Console()
    from search.verbs.report import follow, report_text, side_by_side_text

    text = partial(report_text, folders[0])
    if len(folders) > 1:
        text = partial(side_by_side_text, folders, root)
    if live:
        follow(folders, text, console, every)
    else:
        console.print(text(), markup=False, soft_wrap=True)
    if len(folders) == 1:
        from search.verbs.keep_report import keep_report

        keep_report(folders[0], root, console)
