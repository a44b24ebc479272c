"""Axes: what may vary, over which values, and under which condition.

An axis knows its own values only. Which bound another axis puts on it, and whether it is active at
all, is worked out in `spaces.points`.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Protocol, Self

from tcpa_core.config import Flat, Settings


class Suggester(Protocol):
    """The part of an Optuna trial that is used."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


def label(value: Any) -> str:
    """A value as a short text: level names, and list-valued choices in Optuna."""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


class _Axis(Settings):
    when: dict[str, tuple[Any, ...]] = {}
    """Setting -> values under which the axis is active; all must hold. For `methods`: names."""

    def _when(self) -> Flat:
        return {"when": {path: list(v) for path, v in self.when.items()}} if self.when else {}


class FloatAxis(_Axis):
    """Real numbers from low to high, both included; a grid if `step` is given."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Suggester, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)

    def param(self, path: str, value: float) -> tuple[str, float]:
        """Name and value that `suggest` asks the trial for, if it is to give `value`."""
        return path, value

    def clipped(self, low: float, high: float) -> Self:
        """The axis within further bounds; empty (low > high) where nothing is left."""
        if self.step is not None:
            low = self.low + self.step * math.ceil((low - self.low) / self.step - 1e-9)
            high = self.low + self.step * math.floor((high - self.low) / self.step + 1e-9)
        bounds = {"low": max(self.low, low), "high": min(self.high, high)}
        return self.model_copy(update=bounds)

    def ends(self) -> Sequence[Any]:
        """Values at which settings are checked."""
        return (self.low, self.high)

    def values(self) -> Sequence[Any] | None:
        """All values; None if there is no end to them."""
        if self.step is None:
            return [self.low] if self.low == self.high else None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [min(self.high, self.low + i * self.step) for i in range(count)]

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        return self.step is None or any(
            math.isclose(value, v, rel_tol=1e-9) for v in self.values() or ()
        )

    def as_dict(self) -> Flat:
        """The axis as it stands in YAML."""
        extra: Flat = {"log": True} if self.log else {}
        extra |= {} if self.step is None else {"step": self.step}
        return {"float": [self.low, self.high], **extra, **self._when()}


class IntAxis(_Axis):
    """Whole numbers low, low + step, ... up to high."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: Suggester, path: str) -> int:
        return trial.suggest_int(path, self.low, self.high, step=self.step, log=self.log)

    def param(self, path: str, value: int) -> tuple[str, int]:
        return path, value

    def clipped(self, low: float, high: float) -> Self:
        first = max(0, math.ceil((low - self.low) / self.step)) if low > self.low else 0
        last = math.floor((min(high, self.high) - self.low) / self.step)
        bounds = {"low": self.low + first * self.step, "high": self.low + last * self.step}
        return self.model_copy(update=bounds)

    def ends(self) -> Sequence[Any]:
        return (self.low, self.high)

    def values(self) -> Sequence[Any] | None:
        return range(self.low, self.high + 1, self.step)

    def contains(self, value: Any) -> bool:
        return type(value) is int and value in range(self.low, self.high + 1, self.step)

    def as_dict(self) -> Flat:
        extra: Flat = {"log": True} if self.log else {}
        extra |= {} if self.step == 1 else {"step": self.step}
        return {"int": [self.low, self.high], **extra, **self._when()}


class ChoiceAxis(_Axis):
    """One of several values; chains of methods are lists of names."""

    options: tuple[Any, ...]

    def suggest(self, trial: Suggester, path: str) -> Any:
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

    def contains(self, value: Any) -> bool:
        return value in self.options

    def as_dict(self) -> Flat:
        return {"choice": list(self.options), **self._when()}


class FractionAxis(_Axis):
    """A count as a share of another count N: from max(1, round(low * N)) to round(high * N).

    The trial is asked for a number f between low and high, under the name "PATH/OF"; the point
    holds the count. Each count has an equal part of that range, so that a uniform f draws the first
    and the last as often as the others. `pool` is N where it is known (`at`), and the methods that
    need it may then be called.
    """

    of: str
    low: float
    high: float
    pool: int | None = None

    def at(self, pool: int) -> Self:
        return self.model_copy(update={"pool": pool})

    def count(self, fraction: float) -> int:
        assert self.pool is not None
        return max(1, round(fraction * self.pool))

    def suggest(self, trial: Suggester, path: str) -> int:
        first, last = self.ends()
        drawn = trial.suggest_float(f"{path}/{self.of}", self.low, self.high)
        if first == last:
            return first
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

    def contains(self, value: Any) -> bool:
        return type(value) is int and self.count(self.low) <= value <= self.count(self.high)

    def as_dict(self) -> Flat:
        return {"fraction_of": self.of, "range": [self.low, self.high], **self._when()}


Axis = FloatAxis | IntAxis | ChoiceAxis | FractionAxis


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
