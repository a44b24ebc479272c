"""tcpa stop."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Study


def command(study: Study, root: Root = DEFAULT_ROOT) -> None:
    """Ask the driver of a running study on this machine to end in order."""
    from search.study.folder import StudyDir
    from search.verbs.status import stop_driver

    stop_driver(StudyDir.open(root, study), Console())
