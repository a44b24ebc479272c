"""Ablation designs: which points are trained, and which cells of the table each of them fills.

one_factor         `factors: {PATH: [LEVELS]}`. The baseline, then each factor's other levels, one
                   changed at a time. The baseline is a cell of every factor.
full_factorial     `factors` again, every combination. A point is a cell of each of its factors, and
                   of the factor "combination".
components         `rows: {NAME: {PATH: VALUE}}`: what each row changes in the base; with
                   `cumulative: true` on top of the rows before it.
leave_one_out      `rows: {NAME: {PATH: VALUE}}`: the settings that take component NAME away. The
                   base is level "full", the others are called "without NAME".

`baseline` is {PATH: LEVEL} for factors (absent: the base's value, or the setting's default) and a
row's name for components (absent: the first row).
"""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any, Literal

from spaces.axes import label
from tcpa_core.config import Flat, Settings

Design = Literal["one_factor", "full_factorial", "components", "leave_one_out"]
DESIGNS: dict[str, str] = {
    "one_factor": "factors",
    "full_factorial": "factors",
    "components": "rows",
    "leave_one_out": "rows",
}
"""The key that lists what each design varies."""

FULL = "full"


class Cell(Settings):
    """One entry of an ablation table that a trial counts for."""

    factor: str
    level: str
    order: int
    """Position of the level within its factor, from 0."""
    baseline: bool


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
    """Path -> levels; one_factor and full_factorial."""
    rows: dict[str, Flat] = {}
    """Row -> changes; components and leave_one_out. Already summed up if cumulative."""
    baseline: Flat | str
    """Path -> level, or the name of the baseline row."""

    def num_points(self) -> int:
        """Points before equal ones are merged; replicates not counted."""
        if self.design == "full_factorial":
            return prod(len(levels) for levels in self.factors.values())
        if self.design == "one_factor":
            return 1 + sum(len(levels) - 1 for levels in self.factors.values())
        return len(self.rows) + (self.design == "leave_one_out")

    def points(self) -> Iterator[tuple[Flat, list[Cell]]]:
        """Each point's changes to the base and its cells, baseline first where there is one."""
        match self.design:
            case "one_factor":
                yield from self._one_factor()
            case "full_factorial":
                yield from self._full_factorial()
            case "components":
                for order, (row, changes) in enumerate(self.rows.items()):
                    is_baseline = row == self.baseline
                    yield changes, [_cell("components", row, order, is_baseline)]
            case "leave_one_out":
                yield {}, [_cell("leave_one_out", FULL, 0, True)]
                for order, (row, changes) in enumerate(self.rows.items(), start=1):
                    yield changes, [_cell("leave_one_out", f"without {row}", order, False)]

    def as_dict(self) -> Flat:
        """The design as it stands in YAML, without its seeds."""
        out: Flat = {"design": self.design}
        if self.factors:
            out["factors"] = {path: list(levels) for path, levels in self.factors.items()}
        if self.rows:
            out["rows"] = {row: dict(changes) for row, changes in self.rows.items()}
        if self.design != "leave_one_out":
            out["baseline"] = self.baseline
        return out

    def _one_factor(self) -> Iterator[tuple[Flat, list[Cell]]]:
        reference = self._reference()
        yield reference, [self._level(path, reference[path]) for path in self.factors]
        for path, levels in self.factors.items():
            for level in (v for v in levels if v != reference[path]):
                yield {**reference, path: level}, [self._level(path, level)]

    def _full_factorial(self) -> Iterator[tuple[Flat, list[Cell]]]:
        reference = self._reference()
        for order, levels in enumerate(product(*self.factors.values())):
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
