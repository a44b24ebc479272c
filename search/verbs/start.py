"""From the options of a command to a study that runs: its space, its plan, its folder, its driver.

Imports stand inside the functions: a wrong space is refused in a moment, before anything is loaded
that only a plan or a run needs.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from search.driver.cluster_address import ClusterAddress
from search.exit_codes import DONE
from search.imports import import_meanwhile, without_gc
from search.options import ANEW, Before, Common, Repeat, Where
from search.terminal import StudyConsole
from search.verbs.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.driver.placement import Placement
    from search.planning.plan import Plan
    from search.study.folder import StudyDir
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


def base_of(
    study: str, root: Path, accept: bool, storage: str | None = None
) -> "tuple[tuple[Flat, str], Change | None]":
    """What `--from` takes from a search.

    Returns:
        Settings of the point that it ends with and where they come from, and what has changed
        since it was made.
    """
    from search.study.identity import check_unchanged
    from search.study.working_copy import opened
    from search.verbs.confirm import chosen_point

    folder = opened(root, study, storage)
    settings, how = chosen_point(folder, root)
    with Stages("checking weights and data") as stages:
        change = check_unchanged(folder, accept=accept, reads=False, progress=stages)
    StudyConsole().print(f"base: the point {how}.", markup=False)
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
    as_json: bool = False,
    pilots: "Sequence[str] | None" = None,
    before: Before = ANEW,
) -> "Plan":
    """Check a space, show its plan and return it; nothing is written unless the study `starts`.

    Args:
        as_json: Print it as a document, with which nothing else stands on stdout.
        pilots: Say what the design will see, by these studies; [] by all below the root; None: do
            not.

    Raises:
        StudyError: It starts, and the cluster cannot be used; a pilot is missing or says nothing.
    """
    if placement and starts:
        check_place(placement)
    lesson = _lesson(before, space, common.root)
    with without_gc():
        from search.planning.plan import Decoding, plan_space
        from search.planning.plan_view import show_plan

    with Stages("checking weights and data") as stages:
        plan = plan_space(
            space,
            name_of(space, common),
            common.root,
            tracking_uri=tracking_uri,
            storage=common.storage,
            probe=probe,
            decoding=Decoding(
                starts, stages, told=None if as_json else lambda need: stages.say(str(need))
            ),
            ship_data=placement is not None and placement.ship_data,
            # With other results its sampler goes another way than any study before.
            reuse=None if before.recorded is False or before.sources else before.recorded,
        )
    power = None
    if pilots is not None:
        from search.verbs.power import power_of_plan, show_power  # loads the reports

        power = power_of_plan(plan, pilots, common.storage)
    if as_json:
        from search.planning.plan_document import plan_document
        from search.verbs.documents import print_document

        print_document(plan_document(plan) | ({"power": power.document()} if power else {}))
        return plan
    show_plan(plan, console, placement.cluster if placement else "")
    for line in lesson:
        console.print(f"learned: {line}", markup=False, highlight=False, soft_wrap=True)
    if power:
        show_power(power, console)
    return plan


def _lesson(before: Before, space: "Space", root: Path) -> list[str]:
    """What the sampler is given from before the study, in sentences."""
    if not before.sources:
        return []
    from search.proposals.learned import learn

    return learn(before.sources, space, root).lines


def _check_learns(study: "StudyDir", before: Before) -> None:
    """Refuse to give a study that has begun other results than it was begun with.

    Raises:
        StudyError: It would be.
    """
    begun = study.document().get("learn_from") or []
    if before.sources and before.sources != begun:
        from tcpa_core.errors import StudyError

        raise StudyError(
            f"--learn-from: study {study.name!r} has begun with "
            f"{', '.join(begun) or 'no earlier results'}; leave it out, or give another --study."
        )


def start(
    space: "Space",
    common: Common,
    where: Where,
    repeat: Repeat,
    tracking_uri: str | None,
    *,
    dry_run: bool,
    change: "Change | None" = None,
    then: str = "",
    before: Before = ANEW,
    about: "Mapping[str, object] | None" = None,
) -> int:
    """Show what a space will do, and do it unless that is all that was asked for.

    Args:
        repeat: Whether a study that is there already is taken up.
        change: Other data or weights than the study of `--from` recorded.
        then: A line on what follows the study.
        before: What is taken from earlier studies.
        about: What the study.yaml of a new study says besides.

    Returns:
        The exit code, as of `run_and_watch`.
    """
    placement = where.placement().within(space.cluster)
    console = StudyConsole()
    name = name_of(space, common)

    def planned() -> "Plan":
        plan = shown_plan(
            space,
            common,
            tracking_uri,
            console,
            placement=placement,
            starts=not dry_run,
            before=before,
        )
        if then:
            console.print(then)
        return plan

    if dry_run:
        if not (repeat.resume and is_there(space, name, common, console)):
            planned()
        return DONE

    known: list[int] = []
    """Trials that earlier studies have: with them there may be nothing to train."""

    def make() -> "tuple[StudyDir, Change | None]":
        plan = planned()
        known.append(plan.reusable.num_trials if plan.reusable else 0)
        check_sampler(space.sampler)  # one that is code is not imported by the plan
        learns = {"learn_from": before.sources} if before.sources else {}
        return plan.create(reuse=before.recorded, **learns, **(about or {})), change

    from search.proposals.samplers.base import check_sampler
    from search.verbs.taking_up import is_done, say_finished, taken_up

    with taken_up(common.root, name, space, make, console, repeat, storage=common.storage) as (
        study,
        found,
    ):
        _check_learns(study, before)
        if is_done(study):
            return say_finished(study, common.root, console)
        from search.driver.ray_session import connect

        # Ray takes seconds to start, mostly waiting: what the driver needs is loaded meanwhile.
        imports = import_meanwhile("search.verbs.run")
        may_need_none = any(known)
        with (
            nullcontext()
            if may_need_none
            else connect(placement.address, placement.num_cpus, placement.address_source)
        ):
            imports.join()
            from search.verbs.run import run_and_watch

            return run_and_watch(
                study,
                common.root,
                console,
                placement=placement,
                tracking_uri=tracking_uri,
                change=found,
                cluster=space.cluster,
                reuse=before.given,
            )


def name_of(space: "Space", common: Common) -> str:
    """The name of the study that a command asks for."""
    return space.name if common.study is None else common.study


def is_there(space: "Space", name: str, common: Common, console: Console) -> bool:
    """Whether the study is there already, so that its plan would be to go on with it; says so.

    Raises:
        StudyError: It is one of another space.
    """
    from search.study.working_copy import existing
    from search.verbs.status import show_status
    from search.verbs.taking_up import check_same

    study = existing(common.root, name, common.storage)
    if study is None:
        return False
    check_same(study, space)
    show_status(study, console)
    return True
