"""Ablation designs of factors: `factors: {PATH: [LEVELS]}`, each a setting with its levels.

`baseline` is {PATH: LEVEL}; what it leaves out is the base's value, or the setting's default.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from spaces.axes import label
from spaces.designs import Ablation, Cell, Changes
from spaces.fraction import Runs, alias_lines, fewest_runs, resolution, two_level_runs
from spaces.refusal import Refused
from tcpa_core.config import Flat


class FactorDesign(Ablation):
    """A design of factors, each a setting with its levels."""

    factors: dict[str, tuple[Any, ...]]
    """Path -> levels."""
    baseline: Flat
    """Path -> level, of every factor."""

    @field_validator("factors", mode="before")
    @classmethod
    def _have_levels(cls, factors: Mapping[str, Any]) -> Any:
        for path, levels in factors.items():
            if not isinstance(levels, list | tuple) or len(levels) < 2:
                raise Refused(
                    f"factors: {path} must list at least two levels, got {levels!r}",
                    "factors",
                    path,
                )
            for index, level in enumerate(levels):
                if level in levels[:index]:
                    raise Refused(f"factors: {path} lists {level!r} twice", "factors", path)
        return {path: tuple(levels) for path, levels in factors.items()}

    @field_validator("baseline")
    @classmethod
    def _is_among_levels(cls, baseline: Flat, info: ValidationInfo) -> Flat:
        for path, levels in info.data.get("factors", {}).items():
            if baseline[path] not in levels:
                raise Refused(
                    f"baseline {path} = {label(baseline[path])} is not one of its levels "
                    f"{list(levels)}",
                    "factors",
                    path,
                    ending="; add it to them, or name another under ablation.baseline.",
                )
        return baseline

    def levels(self, path: str) -> list[Any]:
        return list(self.factors.get(path, ()))

    def paths(self) -> set[str]:
        return super().paths() | self.factors.keys()

    def _factorial(self, combinations: Iterable[tuple[Any, ...]]) -> Iterator[Changes]:
        """Points of a factorial: cells of each of their factors, and of "combination"."""
        for order, levels in enumerate(combinations):
            point = dict(zip(self.factors, levels, strict=True))
            name = ", ".join(f"{path}={label(level)}" for path, level in point.items())
            # A point of a factorial counts for each of its levels and for their combination, from
            # which interactions are estimated.
            cells = [self._level(path, level) for path, level in point.items()]
            yield point, [*cells, Cell.of("combination", name, order, point == self.baseline)]

    def _level(self, path: str, value: object) -> Cell:
        order = self.factors[path].index(value)
        return Cell.of(path, label(value), order, value == self.baseline[path])


class OneFactor(FactorDesign):
    """The baseline, and each factor's other levels, one changed at a time."""

    design: Literal["one_factor"]

    def _num_points(self) -> int:
        return 1 + sum(len(levels) - 1 for levels in self.factors.values())

    def _points(self) -> Iterator[Changes]:
        baseline = {path: self.baseline[path] for path in self.factors}
        # The baseline is trained once and counts for every factor.
        yield baseline, [self._level(path, level) for path, level in baseline.items()]
        for path, levels in self.factors.items():
            for level in (v for v in levels if v != baseline[path]):
                yield {**baseline, path: level}, [self._level(path, level)]


class FullFactorial(FactorDesign):
    """Every combination of the levels."""

    design: Literal["full_factorial"]

    def _num_points(self) -> int:
        return prod(len(levels) for levels in self.factors.values())

    def _points(self) -> Iterator[Changes]:
        yield from self._factorial(product(*self.factors.values()))


class FractionalFactorial(FactorDesign):
    """Some combinations of two levels each (`spaces.fraction`), the baseline first."""

    design: Literal["fractional_factorial"]
    runs: int = Field(None, validate_default=True)
    """Points: a power of two above the number of factors."""
    _first_products: bool = PrivateAttr(False)
    """Whether columns are those of versions that did not record `runs`."""

    @field_validator("factors")
    @classmethod
    def _have_two_levels(cls, factors: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for path, levels in factors.items():
            if len(levels) != 2:
                raise Refused(
                    f"design fractional_factorial needs two levels of each factor, got "
                    f"{len(levels)} of {path}",
                    "factors",
                    path,
                    ending="; leave two, or take design full_factorial.",
                )
        return factors

    @field_validator("runs", mode="before")
    @classmethod
    def _is_possible(cls, runs: object, info: ValidationInfo) -> object:
        num = len(info.data.get("factors", ()))
        if runs is None:
            return fewest_runs(num)
        possible = [2**k for k in range(1, num + 1) if 2**k > num]
        # Below that, two factors would share a column; `type`, as true is an int.
        if runs not in possible or type(runs) is not int:
            raise Refused(
                f"runs of {num} factors must be one of {', '.join(map(str, possible))}, got "
                f"{runs!r}",
                "runs",
                ending=f"; leave it out for {fewest_runs(num)}.",
            )
        return runs

    def as_older(self) -> Self:
        """The design of a study whose version did not record `runs`: it had other columns."""
        older = self.model_copy()
        older._first_products = True
        return older

    def as_dict(self) -> Flat:
        written = super().as_dict()
        if self._first_products:
            del written["runs"]
        return written

    def fraction(self) -> tuple[str, list[str]]:
        runs, every = self._runs(), 2 ** len(self.factors)
        size = f"{len(runs)} of {every} runs"
        if len(runs) < every:
            size += f", resolution {resolution(runs)}"
        return size, alias_lines(list(self.factors), runs)

    def _num_points(self) -> int:
        return self.runs

    def _points(self) -> Iterator[Changes]:
        # The first run has every factor low, so that the baseline's level has to be the low one.
        ordered = [
            sorted(levels, key=lambda level, path=path: level != self.baseline[path])  # type: ignore[misc]
            for path, levels in self.factors.items()
        ]
        yield from self._factorial(
            tuple(levels[high] for levels, high in zip(ordered, run, strict=True))
            for run in self._runs()
        )

    def _runs(self) -> Runs:
        return two_level_runs(len(self.factors), self.runs, first_products=self._first_products)
