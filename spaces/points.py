"""Walk the axes in dependency order: which are active, within which bounds, and all their points.

An axis depends on the axes that its `when` names, on `methods` if it is a method's setting, on the
axis it is a fraction of, and on the axes that bound it from above. Larger sides of relations come
first and never fall below what their smaller sides need, so a walk cannot get stuck: no sample is
ever thrown away.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from graphlib import CycleError, TopologicalSorter
from itertools import islice, product
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FloatAxis, FractionAxis, IntAxis, holds
from spaces.constraints import Relation, Side
from spaces.setting_values import default, method_of
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError

MAX_CORNERS = 5_000
MAX_COUNTED = 50_000

Pick = Callable[[str, Axis], Any]

_ABSENT = object()


class Walk:
    """Points of a space, without study settings.

    Raises:
        ConfigError: Conditions, fractions and relations form a cycle.
    """

    def __init__(
        self, base: Flat, axes: dict[str, Axis], relations: tuple[Relation, ...], place: str
    ) -> None:
        self.base, self.axes, self.relations, self.place = base, axes, relations, place
        self.needs = {path: self._needs(path) for path in axes}
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
            if self.active(path, point):
                point[path] = pick(path, self.domain(path, point))
        return point

    def active(self, path: str, point: Flat) -> bool:
        """Whether the axis has a meaning, given the axes it depends on."""
        method = method_of(path)
        if method is not None and method not in self.value("methods", point):
            return False
        conditions = self.axes[path].when.items()
        values = ((p, self.value(p, point), allowed) for p, allowed in conditions)
        return all(v is not _ABSENT and holds(p, v, allowed) for p, v, allowed in values)

    def value(self, path: str, point: Flat) -> Any:
        """The value in effect: of the point, the base, or the setting's default."""
        if path in point:
            return point[path]
        method = method_of(path)
        if method is not None and method not in self.value("methods", point):
            return _ABSENT
        return self.base[path] if path in self.base else default(path)

    def domain(self, path: str, point: Flat) -> Axis:
        """The axis within the bounds that the point puts on it."""
        axis = self.axes[path]
        if isinstance(axis, FractionAxis):
            return axis.at(self.value(axis.of, point))
        if isinstance(axis, ChoiceAxis):
            return axis
        bounds = [
            _next_below(axis, value) if relation.strict else value
            for relation in self.relations
            if relation.lower == path and (value := self._side(relation.upper, point)) is not None
        ]
        bounded = axis.clipped(self._least(path, point), min([axis.high, *bounds]))
        if bounded.low > bounded.high:
            raise ConfigError(
                f"axis {path} has no value left within [{axis.low}, {axis.high}] under "
                f"{'; '.join(r.text for r in self.relations if path in r.paths())} ({self.place}); "
                "widen its range or the other side's."
            )
        return bounded

    def corners(self) -> Iterator[Flat]:
        """Points at the ends of all ranges and at every choice, at most 5,000.

        Under every combination of the axes that switch others on and off, all low and all high, and
        from both each axis alone at each of its ends or choices. So any two axes meet at both of
        their ends, where settings that contradict each other do so.
        """
        seen: set[str] = set()
        for point in islice(self._corners(), MAX_CORNERS):
            key = repr(point)
            if key not in seen:
                seen.add(key)
                yield point

    def grid(self) -> Iterator[Flat]:
        """All points, each once; only for spaces with a `size`."""
        return self._grid(self.order, {})

    def size(self) -> int | None:
        """How many points there are; None if endless, or more than can be counted.

        Only axes that others depend on are enumerated; the rest multiply.
        """
        if self.endless:
            return None
        leading = {path for needs in self.needs.values() for path in needs}
        total = 0
        for number, point in enumerate(self._grid([p for p in self.order if p in leading], {})):
            if number >= MAX_COUNTED:
                return None
            rest = (p for p in self.order if p not in leading and self.active(p, point))
            total += math.prod(len(self.domain(p, point).values() or ()) for p in rest)
        return total

    def shifting(self) -> list[str]:
        """Axes that are not active everywhere, or not within the same bounds."""
        domains: dict[str, list[Flat]] = {path: [] for path in self.axes}

        def note(point: Flat, path: str, domain: Axis) -> Any:
            domains[path].append(domain.as_dict())
            return point[path]

        corners = list(self.corners())
        for point in corners:
            self.walk(partial(note, point))
        return [
            path
            for path, met in domains.items()
            if len(met) < len(corners) or any(domain != met[0] for domain in met)
        ]

    @property
    def endless(self) -> list[str]:
        """Axes without an end to their values."""
        free = (p for p, axis in self.axes.items() if not isinstance(axis, FractionAxis))
        return [path for path in free if self.axes[path].values() is None]

    @cached_property
    def switches(self) -> dict[str, list[Any]]:
        """Axes that others' conditions look at, and the values that make a difference."""
        named: dict[str, list[Any]] = {}
        for axis in self.axes.values():
            for path, allowed in axis.when.items():
                named.setdefault(path, []).extend(allowed)
        if any(method_of(path) for path in self.axes):
            named.setdefault("methods", [])
        out = {}
        for path in (p for p in self.order if p in named):
            axis = self.axes[path]
            if isinstance(axis, ChoiceAxis):
                out[path] = list(axis.options)
            elif isinstance(axis, IntAxis):
                out[path] = sorted({*axis.ends(), *filter(axis.contains, named[path])})
        return out

    def _corners(self) -> Iterator[Flat]:
        for values in product(*self.switches.values()):
            state = dict(zip(self.switches, values, strict=True))
            for otherwise in (0, -1):
                point = self._corner(state, otherwise, {})
                yield point
                for path in [p for p in point if p not in state]:
                    for end in range(len(self.domain(path, point).ends())):
                        yield self._corner(state, otherwise, {path: end})

    def _corner(self, state: Flat, otherwise: int, ends: dict[str, int]) -> Flat:
        """The point with these switches, these axes at these ends, the others at `otherwise`."""

        def pick(path: str, domain: Axis) -> Any:
            if path in state and domain.contains(state[path]):
                return state[path]
            values = domain.ends()
            return values[min(ends.get(path, otherwise), len(values) - 1)]

        return self.walk(pick)

    def _grid(self, order: Any, point: Flat) -> Iterator[Flat]:
        if not order:
            yield point
            return
        path, *rest = order
        if not self.active(path, point):
            yield from self._grid(rest, point)
            return
        for value in self.domain(path, point).values() or ():
            yield from self._grid(rest, {**point, path: value})

    def _needs(self, path: str) -> list[str]:
        """The axes that have to be known before this one, in file order."""
        axis = self.axes[path]
        named = [*self._conditions(path)]
        named += [str(r.upper) for r in self.relations if r.lower == path]
        for lower in self._all_lower(path):
            named += self._conditions(lower)
        if isinstance(axis, FractionAxis):
            named += [axis.of, *self._owner(axis.of)]
        return [p for p in self.axes if p in named]

    def _conditions(self, path: str) -> list[str]:
        named = [*self.axes[path].when, path]
        return [*self.axes[path].when, *(owner for p in named for owner in self._owner(p))]

    @staticmethod
    def _owner(path: str) -> list[str]:
        return ["methods"] if method_of(path) else []

    def _all_lower(self, path: str, above: tuple[str, ...] = ()) -> list[str]:
        """Axes that relations put below this one, through any number of steps."""
        out: list[str] = []
        for relation in self.relations:
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
        if not self.active(side, point):
            return None
        return self._least(side, point)

    def _least(self, path: str, point: Flat) -> float:
        """The smallest value that leaves room for everything below."""
        axis = self.axes[path]
        assert isinstance(axis, FloatAxis | IntAxis)
        bounds = [
            _next_above(axis, value) if relation.strict else value
            for relation in self.relations
            if relation.upper == path and (value := self._side(relation.lower, point)) is not None
        ]
        return axis.clipped(max([axis.low, *bounds]), axis.high).low


def _next_below(axis: Axis, value: float) -> float:
    return math.ceil(value) - 1 if isinstance(axis, IntAxis) else math.nextafter(value, -math.inf)


def _next_above(axis: Axis, value: float) -> float:
    return math.floor(value) + 1 if isinstance(axis, IntAxis) else math.nextafter(value, math.inf)
