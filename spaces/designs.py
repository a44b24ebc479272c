"""Ablation designs: which points are trained, and which cells of the table each of them fills.

one_factor         `factors: {PATH: [LEVELS]}`. The baseline, then each factor's other levels, one
                   changed at a time. The baseline is a cell of every factor.
full_factorial     `factors` again, every combination. A point is a cell of each of its factors, and
                   of the factor "combination".
fractional_factorial
                   `factors` of two levels each, in `runs` points (a power of two; by default the
                   fewest of resolution IV or better, where main effects are mixed neither with each
                   other nor with effects of pairs). See `spaces.fraction`.
components         `rows: {NAME: {PATH: VALUE}}`: what each row changes in the base; with
                   `cumulative: true` on top of the rows before it.
leave_one_out      `rows: {NAME: {PATH: VALUE}}`: the settings that take component NAME away. The
                   base is level "full", the others are called "without NAME".
add_one_in         `rows: {NAME: {PATH: VALUE}}`: the settings that add component NAME. The base is
                   level "base", the others are called "with NAME".

`baseline` is {PATH: LEVEL} for factors (absent: the base's value, or the setting's default) and a
row's name for components (absent: the first row). `test: winner` reads the test split for the best
point only, for rows that compete; by default every row of an ablation is tested. `race: true`
(components only) lets rows compete: `seeds` are then the most a row gets, and rows that are clearly
worse than the best one get fewer.

`datasets: {NAME: {PATH: VALUE}}` runs the whole design on each of them: what a data set sets lies
on top of the base and below the design. Levels are compared within a data set, and then over all.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from math import prod
from typing import Any, Literal

from spaces.axes import label
from spaces.fraction import Runs, alias_lines, resolution, two_level_runs
from tcpa_core.config import Flat
from tcpa_core.settings import Settings

Design = Literal[
    "one_factor",
    "full_factorial",
    "fractional_factorial",
    "components",
    "leave_one_out",
    "add_one_in",
]
DESIGNS: dict[str, str] = {
    "one_factor": "factors",
    "full_factorial": "factors",
    "fractional_factorial": "factors",
    "components": "rows",
    "leave_one_out": "rows",
    "add_one_in": "rows",
}
"""The key that lists what each design varies."""

FROM_BASE = {"leave_one_out": ("full", "without"), "add_one_in": ("base", "with")}
"""Designs whose baseline is the base itself: its name, and the word before the rows' names."""


class Cell(Settings):
    """One entry of an ablation table that a trial counts for."""

    factor: str
    level: str
    order: int
    """Position of the level within its factor, from 0."""
    baseline: bool
    dataset: str = ""
    """Which of the design's data sets; "" where it has one only."""


class DesignPoint(Settings):
    """One trial of a design."""

    point: Flat
    """Settings that differ from the base, by dotted path."""
    seed: int
    cells: tuple[Cell, ...]


class Ablation(Settings):
    """A design, checked."""

    design: Design
    factors: dict[str, tuple[Any, ...]] = {}
    """Path -> levels; one_factor and the factorials."""
    rows: dict[str, Flat] = {}
    """Row -> changes; the other designs. Already summed up if cumulative."""
    datasets: dict[str, Flat] = {}
    """Name -> settings; empty: the base's data alone."""
    runs: int | None = None
    """Points of a fraction; None: the design is none."""
    is_older: bool = False
    """Whether a fraction's columns are those of versions that did not record `runs`."""
    baseline: Flat | str
    """Path -> level, or the name of the baseline row."""
    test: Literal["all", "winner"] = "all"
    """Whose test split is read."""
    race: bool = False
    """Whether rows that are clearly worse than the best one get no further seeds."""

    def num_points(self) -> int:
        """Points before equal ones are merged; replicates not counted."""
        return self._num_points() * max(1, len(self.datasets))

    def points(self) -> Iterator[tuple[Flat, list[Cell]]]:
        """Each point's changes to the base and its cells, baseline first where there is one."""
        if not self.datasets:
            yield from self._points()
        for name, settings in self.datasets.items():
            for changes, cells in self._points():
                of_it = [cell.model_copy(update={"dataset": name}) for cell in cells]
                yield {**settings, **changes}, of_it

    def as_dict(self) -> Flat:
        """The design as it stands in YAML, without its seeds."""
        out: Flat = {"design": self.design}
        if self.factors:
            out["factors"] = {path: list(levels) for path, levels in self.factors.items()}
        if self.rows:
            out["rows"] = {row: dict(changes) for row, changes in self.rows.items()}
        if self.datasets:
            out["datasets"] = {name: dict(settings) for name, settings in self.datasets.items()}
        if self.runs is not None and not self.is_older:
            out["runs"] = self.runs
        if self.design not in FROM_BASE:
            out["baseline"] = self.baseline
        if self.test != "all":
            out["test"] = self.test
        if self.race:
            out["race"] = True
        return out

    def fraction(self) -> tuple[str, list[str]]:
        """Size and resolution of a fraction, and what it cannot tell apart; ("", []) of others."""
        if self.design != "fractional_factorial":
            return "", []
        runs = self._runs()
        all_runs = 2 ** len(self.factors)
        size = f"{len(runs)} of {all_runs} runs"
        if len(runs) < all_runs:
            size += f", resolution {resolution(runs)}"
        return size, alias_lines(list(self.factors), runs)

    def _num_points(self) -> int:
        if self.design == "full_factorial":
            return prod(len(levels) for levels in self.factors.values())
        if self.design == "one_factor":
            return 1 + sum(len(levels) - 1 for levels in self.factors.values())
        if self.design == "fractional_factorial":
            return len(self._runs())
        return len(self.rows) + (self.design in FROM_BASE)

    def _points(self) -> Iterator[tuple[Flat, list[Cell]]]:
        match self.design:
            case "one_factor":
                yield from self._one_factor()
            case "full_factorial":
                yield from self._factorial(product(*self.factors.values()))
            case "fractional_factorial":
                yield from self._factorial(self._fraction())
            case "components":
                for order, (row, changes) in enumerate(self.rows.items()):
                    is_baseline = row == self.baseline
                    yield changes, [_cell("components", row, order, is_baseline)]
            case _:
                name, word = FROM_BASE[self.design]
                yield {}, [_cell(self.design, name, 0, True)]
                for order, (row, changes) in enumerate(self.rows.items(), start=1):
                    yield changes, [_cell(self.design, f"{word} {row}", order, False)]

    def _one_factor(self) -> Iterator[tuple[Flat, list[Cell]]]:
        reference = self._reference()
        yield reference, [self._level(path, reference[path]) for path in self.factors]
        for path, levels in self.factors.items():
            for level in (v for v in levels if v != reference[path]):
                yield {**reference, path: level}, [self._level(path, level)]

    def _runs(self) -> Runs:
        return two_level_runs(len(self.factors), self.runs, first_products=self.is_older)

    def _fraction(self) -> Iterator[tuple[Any, ...]]:
        """The baseline's run first: all factors at their baseline level."""
        reference = self._reference()
        ordered = [
            sorted(levels, key=lambda level, path=path: level != reference[path])  # type: ignore[misc]
            for path, levels in self.factors.items()
        ]
        for run in self._runs():
            yield tuple(levels[high] for levels, high in zip(ordered, run, strict=True))

    def _factorial(
        self, combinations: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[Flat, list[Cell]]]:
        reference = self._reference()
        for order, levels in enumerate(combinations):
            point = dict(zip(self.factors, levels, strict=True))
            name = ", ".join(f"{path}={label(level)}" for path, level in point.items())
            cells = [self._level(path, level) for path, level in point.items()]
            yield point, [*cells, _cell("combination", name, order, point == reference)]

    def _reference(self) -> Flat:
        assert isinstance(self.baseline, dict)
        return self.baseline

    def _level(self, path: str, value: Any) -> Cell:
        order = self.factors[path].index(value)
        return _cell(path, label(value), order, value == self._reference()[path])


def _cell(factor: str, level: str, order: int, baseline: bool) -> Cell:
    return Cell(factor=factor, level=level, order=order, baseline=baseline)
