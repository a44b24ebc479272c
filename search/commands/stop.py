"""tcpa stop."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Root, Storage, Study


def command(study: Study, root: Root = DEFAULT_ROOT, storage: Storage = None) -> None:
    """Ask the driver of a running study on this machine to end in order."""
    from search.study.working_copy import opened
    from search.verbs.status import stop_driver

    stop_driver(opened(root, study, storage), Console())
