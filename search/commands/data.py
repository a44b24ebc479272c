"""tcpa data."""

from typing import Annotated

import typer
from rich.console import Console

from search.study.address import local_folder


def command(
    name: Annotated[str, typer.Argument(help="Kind of data set, for example vtab1k.")],
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data set.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.PATH=value; may be repeated.")
    ] = None,
) -> None:
    """Check a data set and say what is in it."""
    from search.verbs.data import show_data
    from spaces.overrides import parse_override
    from tcpa_core.config import TrialConfig

    folder = None if root is None else str(local_folder(root))
    settings = dict(parse_override(text) for text in set_ or [])
    config = TrialConfig.from_flat({"data.name": name, "data.root": folder} | settings)
    show_data(config.data, Console())
