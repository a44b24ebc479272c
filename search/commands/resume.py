"""tcpa resume."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Accept, Address, Root, Study, Uri
from search.terminal import leave


def command(
    study: Study,
    root: Root = DEFAULT_ROOT,
    address: Address = None,
    tracking_uri: Uri = None,
    accept: Accept = False,
) -> None:
    """Take an interrupted study up where it stopped."""
    from search.study.folder import StudyDir
    from search.study.identity import check_unchanged
    from search.verbs.run import run_and_watch

    folder = StudyDir.open(root, study)
    change = check_unchanged(folder, accept=accept)
    leave(
        run_and_watch(
            folder, root, Console(), address=address, tracking_uri=tracking_uri, change=change
        )
    )
