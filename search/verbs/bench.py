"""Fill the cells of a suite: a search and its confirmation each, one after the other.

Every cell is a study like any other, in the folder of the bench; what is there already is taken up
or passed over, so that the same command goes on after whatever has ended it, and one with a row or
a column more trains those cells alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.driver.warm_workers import WarmWorkers
from search.exit_codes import DONE, FAILURES, STOPPED
from search.imports import import_meanwhile
from search.options import Before, Repeat
from search.planning.bench_plan import BenchPlan, plan_bench
from search.planning.bench_view import cost_text, show_bench_plan
from search.planning.plan import Decoding, plan_space
from search.study.bench_folder import BenchRecord
from search.study.folder import StudyDir
from search.study.identity import Change, check_unchanged, fingerprints_of
from search.study.working_copy import existing
from search.terminal import time_text
from search.verbs.bench_standing import DONE_CELL, Standing, cell_result, standing_of
from search.verbs.confirm import best_points, confirmation, confirms
from search.verbs.progress import Watch
from search.verbs.run import run_watched
from search.verbs.stages import Stages
from search.verbs.taking_up import check_same, is_done, taken_up
from spaces.confirmations import confirmed_name
from spaces.space import Space
from spaces.suite import Suite, SuiteCell
from tcpa_core.errors import RunningError, StoppedError, StorageError, StudyError, TcpaError


class CellWatch(Watch):
    """Of a cell only what needs a reader is printed; on a terminal it is drawn while it runs."""

    is_brief = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRun:
    """One command that fills what is left of a bench.

    Args:
        folder: Of the bench; its cells are studies in it.
        again: The command that goes on.
    """

    suite: Suite
    cells: tuple[SuiteCell, ...]
    """Those to be filled, in their order."""
    folder: Path
    placement: Placement
    repeat: Repeat
    before: Before
    tracking_uri: str | None
    console: Console
    again: str

    def go(self) -> int:
        """Run every cell that is not done.

        Returns:
            The exit code: 0 every cell is done, 1 some failed, 3 stopped early.

        Raises:
            StudyError: A cell that is there is of other settings or data than the suite's.
        """
        left = self.left()
        if not left:
            self._say(f"{self.folder.name}: all {len(self.cells)} cells are done.")
            self._record()
            self._table()
            return DONE
        self._say(f"{self.folder.name}: {cost_text(self._plan(left, is_shown=False))}.")
        self._record()
        placement = self.placement
        # Ray takes seconds to start, mostly waiting: what the driver needs is loaded meanwhile.
        imports = import_meanwhile("search.verbs.run")
        with connect(placement.address, placement.num_cpus, placement.address_source):
            imports.join()
            if placement.address is None:
                placement = replace(placement, warm=WarmWorkers())
            return self._run(left, placement)

    def show_plan(self, *, probe: bool, pilots: Sequence[str] | None = None) -> int:
        """Say what is left and what it will take; nothing is written.

        Args:
            pilots: Say what it will see, too, by these studies; (): by all below the root.
        """
        show_bench_plan(self._plan(self.left(), probe=probe, is_shown=True), self.console)
        if pilots is not None:
            from search.verbs.power import power_of_bench, show_power  # loads the reports

            power = power_of_bench(self.suite, self.cells, self.folder.parent, pilots)
            show_power(power, self.console)
        return DONE

    def _plan(self, left: Sequence[SuiteCell], *, probe: bool = False, is_shown: bool) -> BenchPlan:
        with Stages("checking weights and data") as stages:
            return plan_bench(
                self.suite,
                left,
                self.cells,
                self.folder,
                probe=probe,
                is_shown=is_shown,
                progress=stages,
            )

    def _record(self) -> None:
        """Write which cells the bench has now."""
        before, now = BenchRecord.read(self.folder), BenchRecord.of(self.suite, self.folder)
        gone = {one.study for one in before.entries} if before else set()
        gone -= {one.study for one in now.entries}
        if gone:
            self._say(
                f"{len(gone)} cells of rows or columns that the suite has no more are left where "
                f"they are, and out of the table (first: {min(gone)})."
            )
        now.write()

    def left(self) -> list[SuiteCell]:
        """The cells that are not done; those that are there are the suite's.

        Raises:
            StudyError: As `go`.
        """
        left, prints = [], _Prints()
        for cell in self.cells:
            study = existing(self.folder, cell.name)
            if study is None:
                left.append(cell)
                continue
            check_same(study, cell.space, partial(self._refusal, cell))
            found = standing_of(self.folder, cell.name)
            self._check_confirmed(found)
            if found.state != DONE_CELL:
                left.append(cell)
            elif not self.repeat.accept:
                prints.check(study, cell)
        return left

    def _check_confirmed(self, found: Standing) -> None:
        """Refuse a cell that was confirmed with other points or seeds than the suite asks for.

        Raises:
            StudyError: It was.
        """
        if found.search is None or found.confirmation is None:
            return
        study, confirm = found.confirmation.study, self.suite.confirm
        design = study.document()["space"]["ablation"]
        points = min(confirm.top, len(found.search.view.results.ranking().points))
        counts = {
            "confirm.top": (len(design["rows"]), points),
            "confirm.seeds": (len(design["seeds"]), confirm.seeds),
        }
        differing = [f"{key}: {was} -> {now}" for key, (was, now) in counts.items() if was != now]
        if differing:
            raise StudyError(self._refused_confirmation(study, "; ".join(differing)))

    def _run(self, left: Sequence[SuiteCell], placement: Placement) -> int:
        begun, failed, total = time.monotonic(), 0, len(self.cells)
        for number, cell in enumerate(left, start=1):
            start = time.monotonic()
            try:
                if not self._run_cell(cell, placement):
                    self._say(f"Continue with: {self.again}")
                    return STOPPED
                text = cell_result(self.folder, cell.name)
            except (StoppedError, RunningError, StorageError):
                raise
            except TcpaError as err:  # of this cell: the others are none the worse for it
                text = f"failed: {err}"
            failed += standing_of(self.folder, cell.name).state != DONE_CELL
            rest = (time.monotonic() - begun) / number * (len(left) - number)
            done = total - len(left) + number
            about = f", about {time_text(rest)} left" if number < len(left) else ""
            took = time_text(time.monotonic() - start)
            self._say(f"[{done}/{total}] {cell}: {text}; {took}{about}")
            after = left[number].dataset if number < len(left) else None
            if cell.dataset != after:
                self._table(is_last=after is None)
        return FAILURES if failed else DONE

    def _table(self, *, is_last: bool = True) -> None:
        """Make the table of what is there: once a column is complete, and at the end."""
        from search.verbs.report import bench_text  # loads the reports

        record = BenchRecord.read(self.folder)
        assert record is not None
        text = bench_text(record)
        if is_last:
            self._say(text)

    def _run_cell(self, cell: SuiteCell, placement: Placement) -> bool:
        """Search a cell and confirm it; False: stopped before the end."""
        search = self._study(cell.name, cell.space, placement, {})
        if search is None:
            return False
        suite = self.suite
        best = best_points(search, suite.confirm.top)
        name = confirmed_name(cell.name)
        # No race: every cell has the same number of seeds, and so has its interval.
        space = confirmation(search, name, best, suite.confirm.seeds, races=False)
        about = {"confirms": confirms(search, best)}
        return self._study(name, space, placement, about) is not None

    def _study(
        self, name: str, space: Space, placement: Placement, about: Mapping[str, object]
    ) -> StudyDir | None:
        """Run a study of the bench to its end; None: it was stopped before."""

        def make() -> tuple[StudyDir, Change | None]:
            with Stages(name) as stages:
                plan = plan_space(
                    space,
                    name,
                    self.folder,
                    tracking_uri=self.tracking_uri,
                    decoding=Decoding(keep=True, progress=stages),
                    is_shown=False,
                )
            return plan.create(**about, reuse=self._reused), None

        again = replace(self.repeat, resume=True, wait=self.repeat.wait_s)
        taken = taken_up(
            self.folder, name, space, make, self.console, again, self._refused_confirmation
        )
        with taken as (study, change):
            if is_done(study):
                return study
            outcome = run_watched(
                study,
                self.folder,
                self.console,
                placement=placement.within(space.cluster),
                tracking_uri=self.tracking_uri,
                change=change,
                cluster=space.cluster,
                reuse=None if self.before.given is None else self._reused or False,
                show=self._watch,
            )
            return study if outcome.finished else None

    @property
    def _reused(self) -> list[str] | Literal[False]:
        """Folders from which studies take what others have completed: all below the root."""
        given = self.before.recorded
        return False if given is False else [str(self.folder.parent.resolve()), *given]

    def _watch(
        self, title: str, space: Space, total: int | None, console: Console, *, again: str
    ) -> Watch:
        return CellWatch(title, space, total, console, again=self.again)

    def _refusal(self, cell: SuiteCell, study: StudyDir, found: str) -> str:
        return (
            f"{cell} was searched with other settings than the suite asks for now (study "
            f"{study.name!r}, before -> now): {found}. Nothing was started. Give the changed row "
            "or column a name of its own, so that it has new cells, or the whole bench with "
            "--name: what is the same is taken from here and not trained again."
        )

    def _refused_confirmation(self, study: StudyDir, found: str) -> str:
        return (
            f"{study.path} confirms other points or seeds than the suite asks for now (before -> "
            f"now): {found}. Give the bench another name with --name, which takes what is the same "
            "from this one; or rename that folder to confirm the cell again."
        )

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Prints:
    """Compares data and weights with what finished cells were trained on, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], dict[str, str]] = {}

    def check(self, study: StudyDir, cell: SuiteCell) -> None:
        """Refuse a finished cell whose data or weights have changed since.

        Raises:
            StudyError: They have.
        """
        trials = cell.space.trials
        key = tuple(dict.fromkeys((one.data, one.backbone) for one in trials))
        if key not in self._known:
            with Stages(f"checking weights and data of {study.name}") as stages:
                self._known[key] = fingerprints_of(trials, progress=stages)
        found, recorded = self._known[key], study.fingerprints()
        if found != recorded:
            with Stages(f"checking weights and data of {study.name}") as stages:
                check_unchanged(study, progress=stages)
