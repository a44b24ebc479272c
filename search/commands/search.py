"""tcpa search."""

from search.options import Address, Common, DryRun, Uri, with_common
from search.terminal import leave


@with_common
def command(
    common: Common, address: Address = None, tracking_uri: Uri = None, dry_run: DryRun = False
) -> None:
    """Search a space for its best setting."""
    from search.verbs.start import requested, start

    leave(start(requested(common, "search"), common, address, tracking_uri, dry_run=dry_run))
