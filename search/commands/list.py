"""tcpa list."""

from search.options import DEFAULT_ROOT, Root, Storage
from search.terminal import printable


def command(root: Root = DEFAULT_ROOT, storage: Storage = None) -> None:
    """List the studies of a folder: state, trials, best point, last event."""
    from search.verbs.overview import study_lines

    for line in study_lines(root, storage):
        print(printable(line))
