"""tcpa list."""

from search.options import DEFAULT_ROOT, Root
from search.terminal import printable


def command(root: Root = DEFAULT_ROOT) -> None:
    """List the studies of a folder: state, trials, best point, last event."""
    from search.verbs.overview import study_lines

    for line in study_lines(root):
        print(printable(line))
