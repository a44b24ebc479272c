"""Axes: what may vary, over which values, and under which condition.

    PATH: {float: [LOW, HIGH], log: true, step: S}       log and step exclude each other
    PATH: {int: [LOW, HIGH], log: true, step: S}
    PATH: {choice: [VALUE, ...]}
    PATH: {fraction_of: PATH, range: [LOW, HIGH]}        shares in (0, 1] of a count

Each may have `when: {PATH: VALUE or [VALUES], ...}`; `methods: NAME` there means that the chain of
methods contains NAME. An axis checks itself and knows its own values only: which bound another axis
puts on it, and whether it is active at all, is worked out in `spaces.domains`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)

from spaces.refusal import Flag, Refused
from tcpa_core.config import Flat
from tcpa_core.settings import Settings


class Suggester(Protocol):
    """The part of an Optuna trial that is used."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


def label(value: object) -> str:
    """A value as a short text: level names, and list-valued choices in Optuna."""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


class _Axis(Settings):
    """What all axes have. Fields are called as in YAML, some by their alias."""

    kind: ClassVar[str]
    when: dict[str, tuple[Any, ...]] = {}
    """Setting -> values under which the axis is active; all must hold. For `methods`: names."""

    def as_dict(self) -> Flat:
        """The axis as it stands in YAML."""
        written = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        when = {"when": written.pop("when")} if self.when else {}
        return {self.kind: written.pop(self.kind), **written, **when}


class _Range(_Axis):
    """An axis between two ends."""

    bounds: tuple[float, float]

    @property
    def low(self) -> float:
        return self.bounds[0]

    @property
    def high(self) -> float:
        return self.bounds[1]

    @field_validator("bounds", mode="before")
    @classmethod
    def _two_numbers(cls, raw: object) -> tuple[float, float]:
        pair = tuple(raw) if isinstance(raw, list | tuple) else ()
        if len(pair) != 2 or not all(type(v) in (int, float) and math.isfinite(v) for v in pair):
            raise Refused(f"{cls.kind} needs a range of two numbers, got {raw!r}")
        low, high = pair
        if low > high:
            raise Refused(f"low must be <= high, got {raw!r}")
        return low, high


class _Number(_Range):
    """A number, which relations may bound further."""

    log: Flag = False
    step: float | None = None

    @model_validator(mode="after")
    def _log_fits(self) -> Self:
        # As written: every int axis has a step, of 1.
        if self.log and "step" in self.model_fields_set:
            raise Refused("log and step exclude each other")
        if self.log and self.low <= 0:
            raise Refused(f"a log axis must start above 0, got {self.low}")
        return self

    def ends(self) -> Sequence[Any]:
        """Values at which settings are checked."""
        return self.bounds


class FloatAxis(_Number):
    """Real numbers from low to high, both included; a grid if `step` is given."""

    kind: ClassVar[str] = "float"
    bounds: tuple[float, float] = Field(alias="float")

    @field_validator("step", mode="before")
    @classmethod
    def _is_step(cls, step: Any) -> Any:
        if step is not None and (type(step) not in (int, float) or not 0 < step < math.inf):
            raise Refused(f"step must be a number > 0, got {step!r}")
        return step

    @model_validator(mode="after")
    def _steps_end(self) -> Self:
        steps = 0.0 if self.step is None else (self.high - self.low) / self.step
        if self.step is not None and abs(steps - round(steps)) > 1e-6:
            last = self.low + self.step * math.floor(steps)
            raise Refused(
                f"steps of {self.step} from {self.low} do not end at {self.high}",
                ending=f"; use high {last:.6g}.",
            )
        return self

    def suggest(self, trial: Suggester, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)

    def param(self, path: str, value: float) -> tuple[str, float]:
        """Name and value that `suggest` asks the trial for, if it is to give `value`."""
        return path, value

    def clipped(self, low: float, high: float) -> Self:
        """The axis within further bounds; empty (low > high) where nothing is left."""
        if self.step is not None:
            # Bounds move inwards to the grid; the tolerance keeps a point that is on it but for
            # rounding.
            low = self.low + self.step * math.ceil((low - self.low) / self.step - 1e-9)
            high = self.low + self.step * math.floor((high - self.low) / self.step + 1e-9)
        return self.model_copy(update={"bounds": (max(self.low, low), min(self.high, high))})

    def values(self) -> Sequence[Any] | None:
        """All values; None if there is no end to them."""
        if self.step is None:
            return [self.low] if self.low == self.high else None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        # Steps add up to slightly more than the end.
        return [min(self.high, self.low + i * self.step) for i in range(count)]

    def contains(self, value: object) -> bool:
        # In Python true is a number.
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        return self.step is None or any(
            math.isclose(value, v, rel_tol=1e-9) for v in self.values() or ()
        )


class IntAxis(_Number):
    """Whole numbers low, low + step, ... up to high."""

    kind: ClassVar[str] = "int"
    bounds: tuple[int, int] = Field(alias="int")
    step: int = 1

    @field_validator("bounds", mode="before")
    @classmethod
    def _two_numbers(cls, raw: object) -> tuple[float, float]:
        low, high = super()._two_numbers(raw)
        if type(low) is not int or type(high) is not int:
            raise Refused(f"int needs whole numbers, got {raw}")
        return low, high

    @field_validator("step", mode="before")
    @classmethod
    def _is_step(cls, step: object) -> object:
        if type(step) is not int or step < 1:
            raise Refused(f"step must be a whole number >= 1, got {step!r}")
        return step

    @model_validator(mode="after")
    def _steps_end(self) -> Self:
        low, high = self.bounds
        last = high - (high - low) % self.step
        if last != high:
            raise Refused(
                f"steps of {self.step} from {low} do not end at {high}",
                ending=f"; use [{low}, {last}] or [{low}, {last + self.step}].",
            )
        return self

    def suggest(self, trial: Suggester, path: str) -> int:
        return trial.suggest_int(path, *self.bounds, step=self.step, log=self.log)

    def param(self, path: str, value: int) -> tuple[str, int]:
        return path, value

    def clipped(self, low: float, high: float) -> Self:
        start = self.bounds[0]
        first = max(0, math.ceil((low - start) / self.step)) if low > start else 0
        last = math.floor((min(high, self.high) - start) / self.step)
        bounds = (start + first * self.step, start + last * self.step)
        return self.model_copy(update={"bounds": bounds})

    def values(self) -> Sequence[Any] | None:
        low, high = self.bounds
        return range(low, high + 1, self.step)

    def contains(self, value: object) -> bool:
        return type(value) is int and value in (self.values() or ())


class ChoiceAxis(_Axis):
    """One of several values; chains of methods are lists of names."""

    kind: ClassVar[str] = "choice"
    options: tuple[Any, ...] = Field(alias="choice")

    @field_validator("options", mode="before")
    @classmethod
    def _distinct(cls, raw: object) -> tuple[Any, ...]:
        if not isinstance(raw, list | tuple) or not raw:
            raise Refused(f"choice must be a list of values, got {raw!r}")
        for index, option in enumerate(raw):
            if option in raw[:index]:
                raise Refused(f"choice lists {option!r} twice")
        return tuple(raw)

    def suggest(self, trial: Suggester, path: str) -> Any:
        # Optuna keeps categories as JSON scalars, so that a chain of methods goes by its label.
        names = [self._name(option) for option in self.options]
        return self.options[names.index(trial.suggest_categorical(path, names))]

    def param(self, path: str, value: Any) -> tuple[str, Any]:
        return path, self._name(value)

    @staticmethod
    def _name(option: Any) -> Any:
        return label(option) if isinstance(option, list) else option

    def ends(self) -> Sequence[Any]:
        return self.options

    def values(self) -> Sequence[Any] | None:
        return self.options

    def contains(self, value: object) -> bool:
        return value in self.options


class FractionAxis(_Range):
    """A count as a share of another count N: from max(1, round(low * N)) to round(high * N).

    The trial is asked for a number f between low and high, under the name "PATH/OF"; the point
    holds the count. Each count has an equal part of that range, so that a uniform f draws the first
    and the last as often as the others. N is known at a point only: the methods that need it may be
    called of what `at` gives.
    """

    kind: ClassVar[str] = "fraction_of"
    of: str = Field(alias="fraction_of")
    bounds: tuple[float, float] = Field(None, alias="range", validate_default=True)
    _pool: int | None = PrivateAttr(None)

    @field_validator("of", mode="before")
    @classmethod
    def _as_path(cls, raw: object) -> str:
        return str(raw)

    @field_validator("bounds", mode="before")
    @classmethod
    def _two_numbers(cls, raw: object) -> tuple[float, float]:
        low, high = super()._two_numbers(raw)
        if not 0 < low <= high <= 1:
            raise Refused(f"range must be shares in (0, 1], got {raw}")
        return low, high

    def at(self, pool: int) -> Self:
        """The axis where the other count is known."""
        axis = self.model_copy()
        axis._pool = pool
        return axis

    def count(self, fraction: float) -> int:
        """The count that is this share."""
        assert self._pool is not None
        return max(1, round(fraction * self._pool))

    def suggest(self, trial: Suggester, path: str) -> int:
        first, last = self.ends()
        # Under a name of its own: what the sampler learns is the share, whatever the other count
        # is.
        drawn = trial.suggest_float(f"{path}/{self.of}", self.low, self.high)
        if first == last:
            return first
        # Equal parts, not rounding, which would draw the first and the last count half as often.
        part = (drawn - self.low) / (self.high - self.low) * (last - first + 1)
        return min(last, first + int(part))

    def param(self, path: str, value: int) -> tuple[str, float]:
        """The middle of the count's part of the range."""
        first, last = self.ends()
        part = (value - first + 0.5) / (last - first + 1)
        return f"{path}/{self.of}", self.low + part * (self.high - self.low)

    def ends(self) -> tuple[int, int]:
        return (self.count(self.low), self.count(self.high))

    def values(self) -> Sequence[Any] | None:
        return range(self.count(self.low), self.count(self.high) + 1)

    def contains(self, value: object) -> bool:
        return type(value) is int and self.count(self.low) <= value <= self.count(self.high)


def kind_of(axis: object) -> str | None:
    """The kind of an axis, also as it stands in YAML; None: it has not exactly one."""
    if isinstance(axis, _Axis):
        return axis.kind
    kinds = [kind for kind in KINDS if isinstance(axis, Mapping) and kind in axis]
    return kinds[0] if len(kinds) == 1 else None


Axis = Annotated[
    Annotated[FloatAxis, Tag("float")]
    | Annotated[IntAxis, Tag("int")]
    | Annotated[ChoiceAxis, Tag("choice")]
    | Annotated[FractionAxis, Tag("fraction_of")],
    Discriminator(kind_of),
]

KINDS: Mapping[str, type[_Axis]] = {
    cls.kind: cls for cls in (FloatAxis, IntAxis, ChoiceAxis, FractionAxis)
}
"""By the key of an axis in YAML that tells its kind."""


def without_condition(axis: Axis) -> Flat:
    """The axis as it stands in YAML, but for its `when`."""
    return {key: value for key, value in axis.as_dict().items() if key != "when"}


def is_numeric(axis: Axis) -> bool:
    """Whether relations may bound the axis."""
    return isinstance(axis, FloatAxis | IntAxis)


def holds(path: str, value: Any, allowed: Sequence[Any]) -> bool:
    """Whether a `when` condition is met by the value in effect."""
    if path == "methods":
        return any(name in value for name in allowed)
    return value in allowed
