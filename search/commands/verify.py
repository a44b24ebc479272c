"""tcpa verify."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from search.options import Set
from search.terminal import leave


def command(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Made by 'tcpa bundle'.")],
    trials: Annotated[
        int, typer.Option("--trials", min=0, help="Trials that are drawn and trained again.")
    ] = 3,
    seal: Annotated[str | None, typer.Option("--seal", help="As it was published.")] = None,
    set_: Set = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; default: the best there is.")
    ] = None,
    draw: Annotated[
        int | None, typer.Option("--draw", help="Seed of the draw; default: another each time.")
    ] = None,
) -> None:
    """Check a bundle: hashes, tables against the journal, some trials trained again."""
    from search.verbs.verify import verify
    from spaces.overrides import parse_override

    given = dict(parse_override(text) for text in set_ or [])
    leave(verify(path, Console(), trials=trials, seal=seal, given=given, device=device, draw=draw))
