"""tcpa compare."""

from dataclasses import replace

from rich.console import Console

from search.options import Common, DryRun, Seeds, Uri, Where, with_common
from search.terminal import leave

FAIR = ("sampler.per=methods", "scheduler.name=none")
"""Settings under which methods get equal budgets and train to their end."""


@with_common
def command(
    common: Common,
    where: Where,
    seeds: Seeds = 5,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
) -> None:
    """Search each method with the same budget, then train its best point on fresh seeds."""
    from search.verbs.confirm import compare, confirmed_name
    from search.verbs.report import report_confirmed
    from search.verbs.start import requested, shown_plan

    console = Console()
    common = replace(common, set_=[*FAIR, *(common.set_ or [])])
    space = requested(common, "search")
    placement = where.placement()
    plan = shown_plan(space, common, tracking_uri, console, placement=placement, starts=not dry_run)
    methods = len(space.axes["methods"].ends())
    console.print(f"then {methods} methods x {seeds} fresh seeds: {methods * seeds} trials.")
    if dry_run:
        return
    code = compare(plan, common.root, console, seeds=seeds, placement=placement)
    report_confirmed(common.root / confirmed_name(plan.name), console)
    leave(code)
