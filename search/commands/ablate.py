"""tcpa ablate."""

from typing import Annotated

import typer

from search.options import Accept, Common, DryRun, Uri, Where, with_common
from search.terminal import leave


@with_common
def command(
    common: Common,
    where: Where,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
    from_: Annotated[
        str | None, typer.Option("--from", help="Search whose best point is the base.")
    ] = None,
    accept: Accept = False,
) -> None:
    """Run an ablation: every point of a design with every seed."""
    from search.verbs.start import base_of, requested, start

    winner, change = (None, None) if from_ is None else base_of(from_, common.root, accept)
    space = requested(common, "ablation", winner)
    leave(start(space, common, where, tracking_uri, dry_run=dry_run, change=change))
