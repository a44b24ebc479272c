"""tcpa status."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study


def command(study: Study, root: Root = DEFAULT_ROOT, storage: Storage = None) -> None:
    """Say where a study stands, from its journal alone."""
    from search.study.working_copy import opened
    from search.verbs.status import show_status

    show_status(opened(root, study, storage), Console())
