"""tcpa compare."""

from dataclasses import replace

from search.options import Before, Common, DryRun, Repeat, Seeds, Uri, Where, with_common
from search.terminal import StudyConsole, leave

FAIR = ("sampler.per=methods", "scheduler.name=none")
"""Settings under which methods get equal budgets and train to their end."""


@with_common
def command(
    common: Common,
    where: Where,
    repeat: Repeat,
    before: Before,
    seeds: Seeds = 5,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
) -> None:
    """Search each method with the same budget, then train its best point on fresh seeds."""
    from search.verbs.confirm import compare
    from search.verbs.start import requested

    common = replace(common, set_=[*FAIR, *(common.set_ or [])])
    space, console = requested(common, "search"), StudyConsole()
    leave(
        compare(
            space,
            common,
            where,
            repeat,
            tracking_uri,
            console,
            seeds=seeds,
            dry_run=dry_run,
            before=before,
        )
    )
