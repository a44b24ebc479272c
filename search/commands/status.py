"""tcpa status."""

from search.options import DEFAULT_ROOT, AsJson, Root, Storage, Study
from search.terminal import StudyConsole


def command(
    study: Study, root: Root = DEFAULT_ROOT, storage: Storage = None, as_json: AsJson = False
) -> None:
    """Say where a study stands, from its journal alone."""
    from search.imports import without_gc

    with without_gc():  # all that is read stays
        from search.study.bench_folder import found_bench
        from search.study.working_copy import opened
        from search.verbs.documents import print_document, status_document
        from search.verbs.look import Look
        from search.verbs.status import show_status

        if bench := found_bench(root, study):
            from search.verbs.bench_standing import bench_document, show_bench

            if as_json:
                print_document(bench_document(bench))
            else:
                show_bench(bench, StudyConsole())
            return
        found = opened(root, study, storage)
        if as_json:
            print_document(status_document(Look.at(found)))
        else:
            show_status(found, StudyConsole())
