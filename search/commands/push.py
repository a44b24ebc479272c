"""tcpa push."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Format, GreyBits, Root, Storage, Trained, Weights


def command(
    words: Annotated[list[str], Trained],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    format: Format = "tcpa",
    weights: Weights = None,
    grey_bits: GreyBits = None,
) -> None:
    """Put a trained trial into a repository of the Hugging Face Hub: STUDY TRIAL OWNER/NAME.

    TRIAL is a number, or best. An exported folder may stand in place of STUDY TRIAL. The key is
    that of HF_TOKEN or of 'hf auth login'.
    """
    from search.verbs.push import push
    from search.verbs.trained import source_of

    usage = "tcpa push STUDY TRIAL OWNER/NAME"
    source = source_of(root, storage, words, usage)
    if len(source.rest) != 1:
        raise typer.BadParameter(f"the repository is missing: {usage}")
    for line in push(
        source,
        source.rest[0],
        private=private,
        format=format,
        weights=weights,
        grey_bits=grey_bits,
    ):
        Console().print(line, markup=False, soft_wrap=True)
