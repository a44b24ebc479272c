"""Ablation designs of rows: `rows: {NAME: {PATH: VALUE}}`, each a name for changes to the base."""

from collections.abc import Iterator
from itertools import accumulate
from operator import or_
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from spaces.designs import Ablation, Cell, Changes
from spaces.refusal import Flag, Refused, check_flag
from spaces.setting_values import closed_set
from tcpa_core.config import Flat


class RowDesign(Ablation):
    """A design of rows, each a name for changes to the base."""

    rows: dict[str, Flat]
    """Row -> changes."""

    def levels(self, path: str) -> list[Any]:
        return [changes[path] for changes in self.rows.values() if path in changes]

    def paths(self) -> set[str]:
        return super().paths().union(*self.rows.values())


class Components(RowDesign):
    """Each row by itself, compared with the baseline row."""

    design: Literal["components"]
    cumulative: bool = False
    """Whether each row changes the row before it; false once rows are summed up."""
    race: Flag = False
    """Whether rows compete: clearly worse ones get no further seeds."""
    baseline: str = Field(None, validate_default=True)
    """Name of a row; left out: the first."""

    @model_validator(mode="before")
    @classmethod
    def _summed_up(cls, values: Any) -> Any:
        rows = values["rows"]
        if not check_flag("cumulative", values.get("cumulative", False)):
            return values
        whole = dict(zip(rows, accumulate(rows.values(), or_), strict=True))
        return {**values, "cumulative": False, "rows": whole}

    @field_validator("rows")
    @classmethod
    def _are_two(cls, rows: dict[str, Flat]) -> dict[str, Flat]:
        if len(rows) < 2:
            raise Refused(f"design components needs at least two rows, got {list(rows)}", "rows")
        return rows

    @field_validator("baseline", mode="before")
    @classmethod
    def _is_a_row(cls, baseline: object, info: ValidationInfo) -> object:
        rows = info.data.get("rows", {})
        if baseline is None and rows:
            return next(iter(rows))
        if not isinstance(baseline, str) or baseline not in rows:
            raise Refused(
                f"baseline must be the name of a row, got {baseline!r}",
                "baseline",
                ending=closed_set(str(baseline), rows),
            )
        return baseline

    @property
    def races(self) -> bool:
        return self.race

    def _num_points(self) -> int:
        return len(self.rows)

    def _points(self) -> Iterator[Changes]:
        for order, (row, changes) in enumerate(self.rows.items()):
            yield changes, [Cell.of("components", row, order, row == self.baseline)]


class _FromBase(RowDesign):
    """The base, and one point for each row."""

    base_name: ClassVar[str]
    """What the base is called, which is the baseline."""
    before_row: ClassVar[str]
    """The word before the names of the rows."""

    @field_validator("rows")
    @classmethod
    def _change_something(cls, rows: dict[str, Flat]) -> dict[str, Flat]:
        for row, changes in rows.items():
            if not changes:
                raise Refused(
                    f"rows: row {row!r} changes nothing",
                    "rows",
                    row,
                    ending="; set what differs from the base.",
                )
        return rows

    def _num_points(self) -> int:
        return 1 + len(self.rows)

    def _points(self) -> Iterator[Changes]:
        yield {}, [Cell.of(self.design, self.base_name, 0, True)]
        for order, (row, changes) in enumerate(self.rows.items(), start=1):
            yield changes, [Cell.of(self.design, f"{self.before_row} {row}", order, False)]


class LeaveOneOut(_FromBase):
    """Rows say what takes a component away."""

    design: Literal["leave_one_out"]
    base_name = "full"
    before_row = "without"


class AddOneIn(_FromBase):
    """Rows say what adds a component."""

    design: Literal["add_one_in"]
    base_name = "base"
    before_row = "with"
