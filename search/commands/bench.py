"""tcpa bench."""

from typing import Annotated

import typer

from search.options import (
    DEFAULT_ROOT,
    Before,
    DataFolder,
    Repeat,
    Root,
    Set,
    Trials,
    Uri,
    Where,
    with_common,
)
from search.terminal import StudyConsole, leave


@with_common
def command(
    suite: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped suite.")],
    where: Where,
    repeat: Repeat,
    before: Before,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bench.")] = None,
    root: Root = DEFAULT_ROOT,
    data: DataFolder = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Rows to fill: NAME,NAME; default: all.")
    ] = "",
    datasets: Annotated[
        str, typer.Option("--datasets", help="Columns to fill: NAME,NAME; default: all.")
    ] = "",
    set_: Set = None,
    trials: Trials = None,
    tracking_uri: Uri = None,
    plan: Annotated[bool, typer.Option("--plan", help="Stop after the plan.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few steps of each method for the plan.")
    ] = False,
) -> None:
    """Search every method on every data set, confirm the winners, and make the table."""
    from search.verbs.start_bench import Asked, How, start_bench

    asked = Asked(suite, name, root, data, tuple(set_ or ()), trials, methods, datasets)
    how = How(where, repeat, before, tracking_uri)
    leave(start_bench(asked, how, StudyConsole(), plan=plan, probe=probe))
