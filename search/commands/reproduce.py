"""tcpa reproduce."""

from typing import Annotated

import typer

from search.options import (
    DEFAULT_ROOT,
    Before,
    Common,
    DataFolder,
    DryRun,
    Name,
    Repeat,
    Root,
    Set,
    Storage,
    Uri,
    Where,
    with_common,
)
from search.terminal import leave


@with_common
def command(
    protocol: Annotated[str, typer.Argument(help="Name of a protocol: vpt-vtab, tcpa-hta, ...")],
    where: Where,
    repeat: Repeat,
    before: Before,
    method: Annotated[
        str | None, typer.Option("--method", help="Published row: vpt, vfpt+tcpa, ...")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Published column: dtd, cub, ...")
    ] = None,
    data: DataFolder = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Fresh seeds.")] = 5,
    margin: Annotated[
        float, typer.Option("--margin", min=0.01, help="Least difference that matters, in points.")
    ] = 1.0,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Runs whose mean the published number is.")
    ] = 1,
    from_: Annotated[
        str | None, typer.Option("--from", help="Search whose best point is trained.")
    ] = None,
    study: Name = None,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    set_: Set = None,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
) -> None:
    """Train a published cell on fresh seeds: is its number inside our interval?"""
    from search.verbs.reproduce import chosen_cell, reproduce
    from spaces.overrides import parse_override

    leave(
        reproduce(
            chosen_cell(protocol, method, dataset),
            Common(protocol, study, root, storage, set_),
            where,
            repeat,
            tracking_uri,
            data=data,
            settings=dict(parse_override(text) for text in set_ or []),
            seeds=seeds,
            runs=runs,
            margin=margin / 100,
            search=from_,
            dry_run=dry_run,
            before=before,
        )
    )
