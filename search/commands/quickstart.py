"""tcpa quickstart."""

from search.options import DEFAULT_ROOT, Root, Uri, with_common
from search.terminal import StudyConsole, leave


@with_common
def command(root: Root = DEFAULT_ROOT, tracking_uri: Uri = None) -> None:
    """Search, ablate and report on shipped images with the shipped backbone, offline."""
    from search.verbs.quickstart import run_quickstart

    leave(run_quickstart(root, tracking_uri, StudyConsole()))
