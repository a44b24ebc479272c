"""A suite: methods x data sets x backbones, each cell of which is a search like any other.

`spaces.read_suite` makes one of YAML.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from pydantic import Field

from spaces.sections import Budget
from spaces.space import Space
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.settings import Settings

SLUG = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")


def slug(name: str) -> str:
    """A name of a suite as a part of a folder's: "VPT-Deep" is vpt_deep."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


class Confirm(Settings):
    """How the best points of a cell are trained again."""

    top: int = Field(default=3, ge=2)
    """Best points of a cell's search, by val."""
    seeds: int = Field(default=5, ge=2)
    """Fresh seeds of each of them; the one with the best mean on val is tested, once a seed."""


@dataclass(frozen=True, slots=True)
class SuiteCell:
    """A method on a data set over a backbone."""

    method: str
    dataset: str
    backbone: str
    space: Space
    """What is searched; its name is that of the study."""

    @property
    def name(self) -> str:
        """Of the study."""
        return self.space.name

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a bench is to fill."""

    name: str
    source: str
    """File or shipped suite, for messages and records."""
    methods: tuple[str, ...]
    """The baseline is one of them."""
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    """Data sets by group; {}: it has none."""
    baseline: str
    """Method with which the others are compared."""
    confirm: Confirm
    given: tuple[SuiteCell, ...]
    """Every cell, in the order of the file."""

    @property
    def budget(self) -> Budget:
        """Of each cell's search, the same for all."""
        return self.given[0].space.budget

    @cached_property
    def cells(self) -> tuple[SuiteCell, ...]:
        """Every cell, in the order in which the table is useful early.

        Backbone by backbone and data set by data set, so that columns become complete one after the
        other, with the first data set of each group before the second of any; the baseline leads
        each column, so that the next cell is a comparison already.
        """
        at = {(one.backbone, one.dataset, one.method): one for one in self.given}
        methods = sorted(self.methods, key=lambda name: name != self.baseline)
        return tuple(
            at[backbone, dataset, method]
            for backbone in self.backbones
            for dataset in self._columns()
            for method in methods
        )

    def chosen(self, methods: Sequence[str], datasets: Sequence[str]) -> tuple[SuiteCell, ...]:
        """The cells of some rows and columns, in the order of `cells`.

        Args:
            methods: Names of rows; none: all.
            datasets: Names of columns; none: all.

        Raises:
            ConfigError: There is no such row or column.
        """
        for option, asked, known in (
            ("--methods", methods, self.methods),
            ("--datasets", datasets, self.datasets),
        ):
            for name in asked:
                if name not in known:
                    raise ConfigError(
                        f"{option}: suite {self.name!r} has no {name!r}{nearest(name, known)}. It "
                        f"has: {', '.join(known)}."
                    )
        return tuple(
            one
            for one in self.cells
            if one.method in (methods or self.methods)
            and one.dataset in (datasets or self.datasets)
        )

    def unequal(self) -> str:
        """A sentence where rows train for more epochs than others; "": they do not."""
        found = {one.method: _epochs(one.space) for one in self._first_column()}
        if len(set(found.values())) == 1:
            return ""
        shown = ", ".join(f"{method} {text}" for method, text in found.items())
        return f"rows differ in train.epochs, so that equal trials are no equal budget: {shown}"

    def _first_column(self) -> Sequence[SuiteCell]:
        return [
            one
            for one in self.given
            if (one.dataset, one.backbone) == (self.datasets[0], self.backbones[0])
        ]

    def _columns(self) -> list[str]:
        """Data sets, a turn of the groups at a time; those of no group come as a group."""
        grouped = {name for group in self.groups.values() for name in group}
        turns = [*self.groups.values(), [name for name in self.datasets if name not in grouped]]
        return [name for turn in zip_longest(*turns) for name in turn if name is not None]


def _epochs(space: Space) -> str:
    return "/".join(map(str, sorted({config.train.epochs for config in space.trials})))
