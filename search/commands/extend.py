"""tcpa extend."""

from typing import Annotated

import typer

from search.options import DEFAULT_ROOT, Accept, Root, Storage, Study, Where, with_common
from search.terminal import StudyConsole, leave


@with_common
def command(
    study: Study,
    where: Where,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials to add.")],
    root: Root = DEFAULT_ROOT,
    storage: Storage = None,
    accept: Accept = False,
) -> None:
    """Give a search more trials and go on with it."""
    from search.proposals.samplers.base import check_sampler
    from search.study.identity import check_unchanged
    from search.study.working_copy import opened
    from search.verbs.run import run_and_watch
    from search.verbs.stages import Stages
    from search.verbs.start import check_place

    placement = where.placement()
    folder = opened(root, study, storage)
    check_place(placement)
    with Stages("checking weights and data") as stages:
        change = check_unchanged(folder, accept=accept, progress=stages)
    check_sampler(folder.space().sampler)
    folder.extend(trials)
    leave(run_and_watch(folder, root, StudyConsole(), placement=placement, change=change))
