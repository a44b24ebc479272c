"""tcpa predict."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Device, GreyBits, Root, Storage, Trained, Weights
from search.terminal import leave


def command(
    words: Annotated[list[str], Trained],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all rows there; default: shown.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Write masks of a segmentation into this new folder, as PNG."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes named per picture.")] = 5,
    device: Device = "auto",
    weights: Weights = None,
    grey_bits: GreyBits = None,
) -> None:
    """Classify or segment pictures with a trained trial: STUDY TRIAL FOLDER_OR_FILES.

    TRIAL is a number, or best. An exported folder may stand in place of STUDY TRIAL. Pictures in
    folders that are named like classes give the accuracy, too, and those of a data set with masks
    the mIoU.
    """
    from search.verbs.predict import Wanted, predict
    from search.verbs.trained import source_of

    source = source_of(root, storage, words, "tcpa predict STUDY TRIAL FOLDER_OR_FILES")
    leave(
        predict(
            source,
            Console(),
            Wanted(csv_file=csv, masks=masks, top=top),
            device=device,
            weights=weights,
            grey_bits=grey_bits,
        )
    )
