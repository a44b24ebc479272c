"""tcpa list."""

from search.options import DEFAULT_ROOT, AsJson, Root, Storage
from search.terminal import printable


def command(root: Root = DEFAULT_ROOT, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies of a folder: state, trials, best point, last event."""
    from search.imports import without_gc

    with without_gc():  # all that is read stays
        from search.verbs.documents import list_document, print_document
        from search.verbs.overview import study_lines

        if as_json:
            print_document(list_document(root, storage))
            return
        for line in study_lines(root, storage):
            print(printable(line))
