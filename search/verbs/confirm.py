"""Train the best points of a search again on fresh seeds, and call one of them the winner.

The value that a search selects by is the largest of many noisy ones and therefore too high. The
confirmation is a study of its own: its rows are the best points, its seeds were never used in the
search, rows race each other seed by seed, and the test split is read for the winner alone.

Of a comparison of methods (`sampler.per`) the best point of each method is confirmed. There every
row is an answer, so each gets all seeds and its test split is read.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from search.driver.placement import Placement
from search.exit_codes import STOPPED
from search.options import ANEW, NEW, Before, Common, Repeat, Where
from search.planning.plan import Decoding, plan_space
from search.planning.plan_view import show_plan
from search.study.folder import StudyDir
from search.study.identity import Change, check_unchanged
from search.study.working_copy import exists, opened
from search.verbs.run import run_watched, sum_up
from search.verbs.stages import Stages
from search.verbs.start import check_place, name_of, start
from search.verbs.taking_up import is_done, say_finished, taken_up
from spaces.axes import label
from spaces.confirmations import confirmed_name, is_of, row_names
from spaces.load import space_of
from spaces.selection import Results
from spaces.space import Space
from spaces.verdict import Verdict, decide
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError, StudyError
from tcpa_core.record.scores import CALLED, TASK, score_of


class Candidate(NamedTuple):
    """A point that a confirmation trains again."""

    value: float
    """Mean of the objective in the search."""
    settings: Flat
    """All of them but the seed."""


def confirm(
    study: StudyDir,
    console: Console,
    *,
    top: int,
    seeds: int,
    placement: Placement | None = None,
    repeat: Repeat = NEW,
    before: Before = ANEW,
) -> int:
    """Run the confirmation of a search, or go on with one that was interrupted, and report on it.

    Args:
        top: Points to confirm, at least 2; a comparison of methods takes one of each.
        seeds: Most fresh seeds for each; the fewer, the clearer the winner (see
            `search.proposals.race`).
        placement: Where trials run.
        repeat: Whether another driver of the confirmation is waited for, and whether to go on with
            other data or weights than were recorded.
        before: What is taken from earlier studies.

    Returns:
        The exit code, as of `run_and_watch`.

    Raises:
        StudyError: The study is not a search or has completed too few points, or was confirmed with
            other points or seeds, or its data or weights have changed.
    """
    from search.verbs.report import report_confirmed  # loads the reports

    if top < 2:
        raise ConfigError(
            f"--top must be at least 2, got {top}: points race each other on fresh seeds, and one "
            "alone has none to race. More seeds of a single point are an ablation of one row "
            f"('tcpa ablate SPACE --from {study.name}')."
        )
    if before.learn_from:
        raise ConfigError("--learn-from: a confirmation has no sampler; leave it out.")
    root, name = study.path.parent, confirmed_name(study.name)
    best = best_points(study, top)
    space = confirmation(study, name, best, seeds)

    def make() -> tuple[StudyDir, Change | None]:
        if placement:
            check_place(placement)
        uri = study.document()["tracking_uri"] or None
        with Stages("checking weights and data") as stages:
            change = check_unchanged(study, accept=repeat.accept, progress=stages)
            decoding = Decoding(keep=True, progress=stages)
            plan = plan_space(
                space,
                name,
                root,
                tracking_uri=uri,
                storage=study.storage,
                decoding=decoding,
                reuse=None if before.recorded is False else before.recorded,
            )
        show_plan(plan, console)
        return plan.create(confirms=confirms(study, best), reuse=before.recorded), change

    # One that asks the same question is taken up whatever the user says.
    again = replace(repeat, resume=True, wait=repeat.wait_s)
    with taken_up(root, name, space, make, console, again, _refusal, study.storage) as (
        folder,
        change,
    ):
        if is_done(folder):
            code = say_finished(folder, root, console)
        else:
            outcome = run_watched(
                folder, root, console, placement=placement, change=change, reuse=before.given
            )
            code = sum_up(folder, root, outcome, console)
        if code != STOPPED:
            _show(folder, best, console)
            report_confirmed(folder.path, study.path, console)
    return code


def compare(
    space: Space,
    common: Common,
    where: Where,
    repeat: Repeat,
    tracking_uri: str | None,
    console: Console,
    *,
    seeds: int,
    dry_run: bool,
    before: Before = ANEW,
) -> int:
    """Search methods at equal budget (`sampler.per`), then confirm the best point of each.

    Returns:
        The exit code, as of `run_and_watch`: 1 with failed trials in the confirmation.
    """
    methods = len(space.axes["methods"].ends())
    then = f"then {methods} methods x {seeds} fresh seeds: {methods * seeds} trials."
    code = start(
        space, common, where, repeat, tracking_uri, dry_run=dry_run, then=then, before=before
    )
    if dry_run:
        return code
    name = name_of(space, common)
    if code == STOPPED:
        console.print(
            f"and then: tcpa confirm {name} --root {quote(str(common.root))}", markup=False
        )
        return code
    study = opened(common.root, name, common.storage)
    placement, before = where.placement(), replace(before, learn_from=None)
    return confirm(
        study, console, top=2, seeds=seeds, placement=placement, repeat=repeat, before=before
    )


def confirms(study: StudyDir, best: Mapping[str, Candidate]) -> dict[str, Any]:
    """What a confirmation's study.yaml says of its search (see `spaces.confirmations`)."""
    values = {row: candidate.value for row, candidate in best.items()}
    axes = list(study.space().axes)
    return {"name": study.name, "id": study.document()["id"], "axes": axes, "values": values}


def best_points(study: StudyDir, top: int) -> dict[str, Candidate]:
    """The best completed points of a search, by the name of their row in the confirmation.

    Raises:
        StudyError: The study is not a search, or has too few completed points.
    """
    space = study.space()
    if space.ablation:
        raise StudyError(
            f"{study.name} is an ablation; only the points of a search can be confirmed, or taken "
            "as a base."
        )
    results = Results.of(space, study.state())
    if space.scheduler.herd:
        raise StudyError(
            f"{study.name} is a search by population based training: its best trials changed their "
            "settings while they trained, and a confirmation, like any point, trains with one "
            "setting from first to last. Search again with a fresh seed (--set seeds=[1] --study "
            "NAME) and compare the best of both, or take another scheduler."
        )
    settings: dict[str, Flat] = {}
    for one in results.state.trials.values():
        settings.setdefault(one.planned.point, _without_seed(one.planned.params))
    ranking = results.ranking()
    if len(ranking.points) < min(top, 2):
        need = "two are needed to confirm one" if top > 1 else "one is needed"
        raise StudyError(
            f"{study.name} has {len(ranking.points)} completed points, {need}; let it run on: "
            f"'tcpa resume {study.name}'."
        )
    if not space.sampler.per:
        chosen = {f"point {i}": one for i, one in enumerate(ranking.points[:top], start=1)}
    else:
        chosen = results.best_of(lambda point: label(settings[point]["methods"]))
    return {row: Candidate(one.value, settings[one.point]) for row, one in chosen.items()}


def chosen_point(study: StudyDir, root: Path) -> tuple[Flat, str]:
    """Settings of the point that a search ends with, and how it was chosen.

    Where a confirmation has run to its end, it is the row that this selects: its winner, or, where
    it could not decide, the row with the best mean.

    Raises:
        StudyError: The study is not a search, or has no completed point.
    """
    selected = next(iter(best_points(study, 1).values())).settings
    name = confirmed_name(study.name)
    if exists(root, name, study.storage):
        confirmed = opened(root, name, study.storage)
        rows = _Rows(confirmed)
        best = rows.results.ranking().selected
        is_its_own = is_of(confirmed.document(), study.document())
        if is_its_own and rows.results.state.is_finished and best is not None:
            verdict = rows.verdict()
            how = f"that leads in {name} ({str(verdict).rstrip('.')})"
            if verdict.winner:
                how = f"confirmed by {name}"
            return rows.settings[best.point], how
    return selected, f"selected by {study.name}"


def confirmation(
    study: StudyDir,
    name: str,
    best: Mapping[str, Candidate],
    seeds: int,
    *,
    races: bool = True,
) -> Space:
    """The confirming study's space; its baseline is what the search selected.

    Args:
        races: Whether clearly worse points get fewer seeds, unless every point is an answer.
    """
    # Seeds that the search has seen are part of why its best points are the best.
    first = max(one.planned.seed for one in study.state().trials.values()) + 1
    searched = study.space()
    compares = searched.sampler.per is not None
    task = searched.base.get(TASK)
    document = {
        "name": name,
        # Who reads the study looks here for the task, and rows that say it again do not vary it.
        **({} if task in (None, "classify") else {"base": {TASK: task}}),
        "objective": searched.objective[0].model_dump(),
        "ablation": {
            "design": "components",
            "baseline": next(iter(best)),
            "rows": {row: candidate.settings for row, candidate in best.items()},
            "seeds": list(range(first, first + seeds)),
            "test": "all" if compares else "winner",
            "race": races and not compares,
        },
        "cluster": searched.cluster.model_dump(exclude_none=True),
    }
    return space_of(document, source=f"confirmation of {study.name}")


class _Rows:
    """The rows of a confirmation, from its journal."""

    def __init__(self, folder: StudyDir) -> None:
        self.results = Results.of(folder.space(), folder.state())
        self.settings: dict[str, Flat] = {}
        """By point."""
        self.values: dict[str, dict[int, float | None]] = {}
        """Objective by row and seed; None: the trial gave none."""
        self.tested: dict[str, dict[int, float]] = {}
        """The score on test by row and seed."""
        self._folder = folder
        metric = self.results.objective.metric
        for one in self.results.state.trials.values():
            planned = one.planned
            row = planned.cells[0]["level"] if planned.cells else planned.point
            self.settings[planned.point] = _without_seed(planned.params)
            found = self.values.setdefault(row, {})
            if one.ended:
                found[planned.seed] = one.value(metric)
            if one.test_score is not None:
                self.tested.setdefault(row, {})[planned.seed] = one.test_score

    def verdict(self) -> Verdict:
        """Who won."""
        return _verdict(self._folder, self.values)


def _verdict(folder: StudyDir, values: Mapping[str, Mapping[int, float | None]]) -> Verdict:
    """Which row won, or what is missing to say so."""
    space = folder.space()
    utility = space.objective[0].utility
    utilities = {
        row: {seed: None if value is None else utility(value) for seed, value in found.items()}
        for row, found in values.items()
    }
    races = space.ablation is not None and space.ablation.races
    return decide(utilities, space.seeds, races=races)


def _show(folder: StudyDir, best: Mapping[str, Candidate], console: Console) -> None:
    """The value the search saw beside the confirmed one, and whether the race is decided."""
    rows, names = _Rows(folder), row_names(folder.document())
    objective = rows.results.objective
    # Its rows say the task: it has no base.
    scores = [one.score for one in rows.results.state.trials.values()]
    on_test = CALLED[(scores or [score_of({})])[0].test]
    table = Table("", f"{objective.metric} in the search", "confirmed", "n", "optimism", on_test)
    for row, found in rows.values.items():
        known = [value for value in found.values() if value is not None and math.isfinite(value)]
        cells = ["", "0", ""]
        if known:
            mean = math.fsum(known) / len(known)
            optimism = objective.utility(best[row].value - mean)
            cells = [f"{mean:.4f}", str(len(known)), f"{optimism:+.4f}"]
        test = rows.tested.get(row, {}).values()
        shown = f"{sum(test) / len(test):.4f}" if test else ""
        table.add_row(names.get(row, row), f"{best[row].value:.4f}", *cells, shown)
    console.print(table)
    console.print(str(rows.verdict()), markup=False, soft_wrap=True)


def _refusal(folder: StudyDir, found: str) -> str:
    return (
        f"{folder.path} confirms other points or seeds than asked for now (before -> now): "
        f"{found}; rename that folder to confirm again: what is the same is taken from it."
    )


def _without_seed(params: Flat) -> Flat:
    return {path: value for path, value in params.items() if path != "seed"}
