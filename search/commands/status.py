"""tcpa status."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Study


def command(study: Study, root: Root = DEFAULT_ROOT) -> None:
    """Say where a study stands, from its journal alone."""
    from search.study.folder import StudyDir
    from search.verbs.status import show_status

    show_status(StudyDir.open(root, study), Console())
