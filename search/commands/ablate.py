"""tcpa ablate."""

from typing import Annotated

import typer

from search.options import Before, Common, DryRun, Repeat, Uri, Where, with_common
from search.terminal import leave


@with_common
def command(
    common: Common,
    where: Where,
    repeat: Repeat,
    before: Before,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
    from_: Annotated[
        str | None, typer.Option("--from", help="Search whose best point is the base.")
    ] = None,
) -> None:
    """Run an ablation: every point of a design with every seed."""
    from search.verbs.start import base_of, requested, start

    winner, change = None, None
    if from_ is not None:
        winner, change = base_of(from_, common.root, repeat.accept, common.storage)
    space = requested(common, "ablation", winner)
    leave(
        start(
            space,
            common,
            where,
            repeat,
            tracking_uri,
            dry_run=dry_run,
            change=change,
            before=before,
        )
    )
