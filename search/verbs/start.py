"""From the options of a command to a study that runs: its space, its plan, its folder, its driver.

Imports stand inside the functions: a wrong space is refused in a moment, before anything is loaded
that only a plan or a run needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from search.driver.cluster_address import ClusterAddress
from search.imports import import_meanwhile, without_gc
from search.options import Common, Where
from search.verbs.stages import Stages

if TYPE_CHECKING:
    from search.driver.placement import Placement
    from search.planning.plan import Plan
    from search.study.identity import Change
    from spaces.space import Space
    from tcpa_core.config import Flat


def requested(
    common: Common, kind: str | None = None, winner: "tuple[Flat, str] | None" = None
) -> "Space":
    """The space that a command asks for, as of `requested_space`."""
    from search.planning.requested_space import requested_space
    from spaces.overrides import parse_override

    settings = dict(parse_override(text) for text in common.set_ or [])
    return requested_space(common.space, settings, trials=common.trials, kind=kind, winner=winner)


def base_of(study: str, root: Path, accept: bool) -> "tuple[tuple[Flat, str], Change | None]":
    """What `--from` takes from a search.

    Returns:
        Settings of the point that it ends with and where they come from, and what has changed
        since it was made.
    """
    from search.study.folder import StudyDir
    from search.study.identity import check_unchanged
    from search.verbs.confirm import chosen_point

    folder = StudyDir.open(root, study)
    settings, how = chosen_point(folder, root)
    with Stages("checking weights and data") as stages:
        change = check_unchanged(folder, accept=accept, reads=False, progress=stages)
    Console().print(f"base: the point {how}.", markup=False)
    return (settings, f"--from {study}"), change


def check_place(placement: "Placement") -> None:
    """Refuse a cluster that this machine cannot use, before anything is loaded or made.

    Raises:
        StudyError: No driver can join it from here.
    """
    if placement.address is not None:
        from search.driver.cluster_check import check_cluster

        check_cluster(ClusterAddress(placement.address, placement.address_source))


def shown_plan(
    space: "Space",
    common: Common,
    tracking_uri: str | None,
    console: Console,
    *,
    placement: "Placement | None" = None,
    probe: bool = False,
    starts: bool = False,
) -> "Plan":
    """Check a space, show its plan and return it; nothing is written unless the study `starts`.

    Raises:
        StudyError: It starts, and the cluster cannot be used.
    """
    if placement and starts:
        check_place(placement)
    with without_gc():
        from search.planning.plan import Decoding, plan_space
        from search.planning.plan_view import show_plan

    with Stages("checking weights and data") as stages:
        plan = plan_space(
            space,
            space.name if common.study is None else common.study,
            common.root,
            tracking_uri=tracking_uri,
            probe=probe,
            decoding=Decoding(starts, stages, told=lambda need: stages.say(str(need))),
        )
    show_plan(plan, console, placement.cluster if placement else "")
    return plan


def start(
    space: "Space",
    common: Common,
    where: Where,
    tracking_uri: str | None,
    *,
    dry_run: bool,
    change: "Change | None" = None,
) -> int:
    """Show what a space will do, and do it unless that is all that was asked for.

    Args:
        change: Other data or weights than the study of `--from` recorded.

    Returns:
        The exit code, as of `run_and_watch`.
    """
    placement = where.placement().within(space.cluster)
    console = Console()
    plan = shown_plan(space, common, tracking_uri, console, placement=placement, starts=not dry_run)
    if dry_run:
        return 0
    folder = plan.create()
    from search.driver.ray_session import connect

    # Ray takes seconds to start, mostly waiting: what the driver needs is loaded meanwhile.
    imports = import_meanwhile("search.verbs.run")
    with connect(placement.address, placement.num_cpus, placement.address_source):
        imports.join()
        from search.verbs.run import run_and_watch

        return run_and_watch(
            folder,
            common.root,
            console,
            placement=placement,
            tracking_uri=plan.tracking_uri,
            change=change,
        )
