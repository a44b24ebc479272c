"""tcpa export."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Format, GreyBits, Root, Storage, Trained, Weights


def command(
    words: Annotated[list[str], Trained],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    format: Format = "tcpa",
    weights: Weights = None,
    grey_bits: GreyBits = None,
) -> None:
    """Write a trained trial as a folder for others: STUDY TRIAL DIR.

    TRIAL is a number, or best. It is read back and compared with the trial first.
    """
    from search.verbs.export import export
    from search.verbs.trained import source_of

    usage = "tcpa export STUDY TRIAL DIR"
    source = source_of(root, storage, words, usage)
    if len(source.rest) != 1:
        raise typer.BadParameter(f"the folder to write is missing: {usage}")
    out = Path(source.rest[0])
    for line in export(source, out, format=format, weights=weights, grey_bits=grey_bits):
        Console().print(line, markup=False, soft_wrap=True)
