"""Ablation designs: which points are trained, and which cells of the table each of them fills.

What each design trains is told by its class: those of factors in `spaces.factor_designs`, those of
rows in `spaces.row_designs`. `spaces.ablation_section` reads them.

`datasets: {NAME: {PATH: VALUE}}` runs the whole design on each of them: what a data set sets lies
on top of the base and below the design. Levels are compared within a data set, and then over all.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from spaces.refusal import Refused
from tcpa_core.config import Flat
from tcpa_core.settings import Settings

KEYS = (
    "design", "factors", "rows", "cumulative", "datasets", "runs", "baseline", "test", "race",
    "seeds",
)  # fmt: skip
"""Keys of `ablation`, in the order in which they are stored; each design has some of them."""


class Cell(Settings):
    """One entry of an ablation table that a trial counts for."""

    factor: str
    level: str
    order: int
    """Position of the level within its factor, from 0."""
    baseline: bool
    dataset: str = ""
    """Which of the design's data sets; "" where it has one only."""

    @classmethod
    def of(cls, factor: str, level: str, order: int, is_baseline: bool) -> Self:
        """The cell of a level."""
        return cls(factor=factor, level=level, order=order, baseline=is_baseline)


Changes = tuple[Flat, list[Cell]]
"""What a point changes in the base, and its cells."""


class DesignPoint(Settings):
    """One trial of a design."""

    point: Flat
    """Settings that differ from the base, by dotted path."""
    seed: int
    cells: tuple[Cell, ...]


class Ablation(Settings):
    """What all designs have. `design` tells them apart, and each checks itself."""

    design: str
    datasets: dict[str, Flat] = {}
    """Name -> settings; empty: the base's data alone."""
    test: Literal["all", "winner"] = "all"
    """Whose test split is read."""

    @field_validator("datasets", mode="before")
    @classmethod
    def _distinct(cls, datasets: object) -> object:
        if not isinstance(datasets, Mapping) or len(datasets) < 2:
            raise Refused(
                f"datasets must map at least two names to their settings, got {datasets!r}",
                "datasets",
                ending="; for example {dtd: {data.root: vtab/dtd}, svhn: {data.root: ...}}.",
            )
        known: dict[str, str] = {}
        for name, settings in datasets.items():
            other = known.setdefault(repr(sorted(settings.items())), name)
            if other != name:
                raise Refused(
                    f"datasets {other!r} and {name!r} have equal settings",
                    "datasets",
                    ending="; give each its data.name or data.root.",
                )
        return datasets

    @field_validator("test", mode="before")
    @classmethod
    def _all_or_winner(cls, test: object) -> object:
        if test not in ("all", "winner"):
            raise Refused(f"test must be all or winner, got {test!r}", "test")
        return test

    @model_validator(mode="after")
    def _has_a_winner(self) -> Self:
        if self.datasets and (self.races or self.test == "winner"):
            raise Refused(
                "datasets have no common winner, so neither race nor test: winner goes with them",
                "datasets",
                ending="; remove one or the other.",
            )
        return self

    @property
    def races(self) -> bool:
        """Whether rows that are clearly worse than the best one get no further seeds."""
        return False

    def num_points(self) -> int:
        """Points before equal ones are merged; replicates not counted."""
        return self._num_points() * max(1, len(self.datasets))

    def points(self) -> Iterator[Changes]:
        """Each point's changes to the base and its cells, baseline first where there is one."""
        if not self.datasets:
            yield from self._points()
        for name, settings in self.datasets.items():
            for changes, cells in self._points():
                of_it = [cell.model_copy(update={"dataset": name}) for cell in cells]
                yield {**settings, **changes}, of_it

    def levels(self, path: str) -> list[Any]:
        """Values that the design gives to a setting."""
        raise NotImplementedError

    def paths(self) -> set[str]:
        """Settings that the design varies, or that are other ones on other data sets."""
        return {path for settings in self.datasets.values() for path in settings}

    def as_dict(self) -> Flat:
        """The design as it stands in YAML, without its seeds."""
        # Rows of `cumulative: true` are stored summed up, so that the key itself is not stored.
        written = self.model_dump(mode="json", exclude_defaults=True) | {"design": self.design}
        return {key: written[key] for key in KEYS if key in written}

    def fraction(self) -> tuple[str, list[str]]:
        """Size and resolution of a fraction, and what it cannot tell apart; ("", []) of others."""
        return "", []

    def _num_points(self) -> int:
        raise NotImplementedError

    def _points(self) -> Iterator[Changes]:
        """The points on one data set."""
        raise NotImplementedError
