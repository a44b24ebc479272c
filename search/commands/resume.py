"""tcpa resume."""

from search.options import DEFAULT_ROOT, Accept, Root, Storage, Study, Uri, Where, with_common
from search.terminal import StudyConsole, leave


@with_common
def command(
    study: Study,
    where: Where,
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    tracking_uri: Uri = None,
    accept: Accept = False,
) -> None:
    """Take an interrupted study up where it stopped."""
    from search.study.identity import check_unchanged
    from search.study.working_copy import opened
    from search.verbs.run import run_and_watch
    from search.verbs.stages import Stages
    from search.verbs.start import check_place

    console, placement = StudyConsole(), where.placement()
    folder = opened(root, study, storage)
    check_place(placement)
    with Stages("checking weights and data") as stages:
        change = check_unchanged(folder, accept=accept, progress=stages)
    leave(
        run_and_watch(
            folder,
            root,
            console,
            placement=placement,
            tracking_uri=tracking_uri,
            change=change,
        )
    )
