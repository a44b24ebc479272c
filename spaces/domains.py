"""The domain of each axis at a point: whether it is active there, and within which bounds.

An axis depends on the axes that its `when` names, on `methods` if it is a method's setting, on the
axis it is a fraction of, and on the axes that bound it from above. Larger sides of relations come
first and never fall below what their smaller sides need, so a walk in this order cannot get stuck:
no sample is ever thrown away.
"""

import math
from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FloatAxis, FractionAxis, IntAxis, holds
from spaces.constraints import Relation, Side
from spaces.setting_values import default, method_of
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError

Pick = Callable[[str, Axis], Any]
"""Chooses a value of the axis of this path, which comes within its bounds."""

_ABSENT = object()
"""In place of the value of a setting that a trial does not have."""


class Domains:
    """The axes of a space in the order in which their values can be chosen.

    Args:
        base: Settings that do not vary.
        axes: By dotted path.
        relations: What binds axes to each other, to the base, or to numbers.
        place: The space, for messages.

    Raises:
        ConfigError: Conditions, fractions and relations form a cycle.
    """

    def __init__(
        self, base: Flat, axes: Mapping[str, Axis], relations: tuple[Relation, ...], place: str
    ) -> None:
        self.axes = axes
        self._base, self._relations, self._place = base, relations, place
        self.needs = {path: self._needs(path) for path in axes}
        """The axes that each axis depends on, in file order."""
        try:
            self.order = tuple(TopologicalSorter(self.needs).static_order())
        except CycleError as err:
            chain = " -> ".join(err.args[1])
            raise ConfigError(
                f"axes depend on each other in a circle: {chain} ({place}); remove one of their "
                "'when', 'fraction_of' or constraints."
            ) from err

    def walk(self, pick: Pick) -> Flat:
        """Build a point: `pick` is asked for a value of each active axis within its bounds.

        Raises:
            ConfigError: The bounds leave an axis no value.
        """
        point: Flat = {}
        for path in self.order:
            if self.is_active(path, point):
                point[path] = pick(path, self.domain(path, point))
        return point

    def is_active(self, path: str, point: Flat) -> bool:
        """Whether the axis has a meaning, given the axes it depends on."""
        method = method_of(path)
        if method is not None and method not in self.value("methods", point):
            return False
        conditions = self.axes[path].when.items()
        values = ((p, self.value(p, point), allowed) for p, allowed in conditions)
        return all(v is not _ABSENT and holds(p, v, allowed) for p, v, allowed in values)

    def value(self, path: str, point: Flat) -> Any:
        """The value in effect: of the point, the base, or the setting's default.

        A setting of a method that the point does not have gives a mark that equals no value.
        """
        if path in point:
            return point[path]
        method = method_of(path)
        if method is not None and method not in self.value("methods", point):
            return _ABSENT
        return self._base[path] if path in self._base else default(path)

    def domain(self, path: str, point: Flat) -> Axis:
        """The axis within the bounds that the point puts on it."""
        axis = self.axes[path]
        if isinstance(axis, FractionAxis):
            return axis.at(self.value(axis.of, point))
        if isinstance(axis, ChoiceAxis):
            return axis
        bounds = [
            _next_below(axis, value) if relation.strict else value
            for relation in self._relations
            if relation.lower == path and (value := self._side(relation.upper, point)) is not None
        ]
        bounded = axis.clipped(self._least(path, point), min([axis.high, *bounds]))
        if bounded.low > bounded.high:
            texts = "; ".join(r.text for r in self._relations if path in r.paths())
            raise ConfigError(
                f"axis {path} has no value left within [{axis.low}, {axis.high}] under {texts} "
                f"({self._place}); widen its range or the other side's."
            )
        return bounded

    def _needs(self, path: str) -> list[str]:
        """The axes that have to be known before this one, in file order."""
        axis = self.axes[path]
        named = self._conditions(path)
        named += [str(r.upper) for r in self._relations if r.lower == path]
        # A larger side leaves room only for smaller ones that are active, so it is chosen after
        # whatever switches these on and off.
        for lower in self._all_lower(path):
            named += self._conditions(lower)
        if isinstance(axis, FractionAxis):
            named += [axis.of, *_owner(axis.of)]
        return [p for p in self.axes if p in named]

    def _conditions(self, path: str) -> list[str]:
        """What has to be known to say whether the axis is active."""
        named = [*self.axes[path].when, path]
        return [*self.axes[path].when, *(owner for p in named for owner in _owner(p))]

    def _all_lower(self, path: str, above: tuple[str, ...] = ()) -> list[str]:
        """Axes that relations put below this one, through any number of steps."""
        out: list[str] = []
        for relation in self._relations:
            lower = relation.lower
            if relation.upper == path and lower in self.axes and lower not in above:
                out += [str(lower), *self._all_lower(str(lower), (*above, path))]
        return out

    def _side(self, side: Side, point: Flat) -> Any:
        """The number that binds the other side; None if there is none at this point."""
        if not isinstance(side, str):
            return side
        if side not in self.axes:
            value = self.value(side, point)
            return None if value is _ABSENT else value
        if side in point:
            return point[side]
        # Not chosen yet: it is a smaller side, and will take its least value if it has to.
        return self._least(side, point) if self.is_active(side, point) else None

    def _least(self, path: str, point: Flat) -> float:
        """The smallest value that leaves room for everything below."""
        axis = self.axes[path]
        assert isinstance(axis, FloatAxis | IntAxis)
        bounds = [
            _next_above(axis, value) if relation.strict else value
            for relation in self._relations
            if relation.upper == path and (value := self._side(relation.lower, point)) is not None
        ]
        return axis.clipped(max([axis.low, *bounds]), axis.high).low


def _owner(path: str) -> list[str]:
    return ["methods"] if method_of(path) else []


def _next_below(axis: Axis, value: float) -> float:
    return math.ceil(value) - 1 if isinstance(axis, IntAxis) else math.nextafter(value, -math.inf)


def _next_above(axis: Axis, value: float) -> float:
    return math.floor(value) + 1 if isinstance(axis, IntAxis) else math.nextafter(value, math.inf)
