"""tcpa search."""

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
) -> None:
    """Search a space for its best setting."""
    from search.verbs.start import requested, start

    leave(
        start(
            requested(common, "search"),
            common,
            where,
            repeat,
            tracking_uri,
            dry_run=dry_run,
            before=before,
        )
    )
