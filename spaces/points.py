"""The points of a search: its corners, its grid, how many there are, and which axes shift.

How one point is built, axis by axis, is in `spaces.domains`.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice, product
from typing import Any

from spaces.axes import Axis, ChoiceAxis, FractionAxis, IntAxis
from spaces.domains import Domains
from spaces.setting_values import method_of
from tcpa_core.config import Flat

MAX_CORNERS = 5_000
"""Corners that are looked at: each one is a trial that is checked before a study starts."""
MAX_COUNTED = 50_000
"""Points that are counted one by one."""


class Points:
    """All points within these domains."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._axes = domains.axes

    @cached_property
    def corners(self) -> tuple[Flat, ...]:
        """Points at the ends of all ranges and at every choice, at most 5,000.

        Under every combination of the axes that switch others on and off, all low and all high, and
        from both each axis alone at each of its ends or choices. So any two axes meet at both of
        their ends, where settings that contradict each other do so.
        """
        distinct = {repr(point): point for point in islice(self._corners(), MAX_CORNERS)}
        return tuple(distinct.values())

    def grid(self) -> Iterator[Flat]:
        """All points, each once; only for spaces with a `size`."""
        return self._grid(self._domains.order, {})

    def size(self) -> int | None:
        """How many points there are; None if infinite, or more than can be counted.

        Only axes that others depend on are enumerated; the rest multiply.
        """
        if self.infinite:
            return None
        domains = self._domains
        needed = {path for needs in domains.needs.values() for path in needs}
        leading = [path for path in domains.order if path in needed]
        free = [path for path in domains.order if path not in needed]
        total = 0
        for number, point in enumerate(self._grid(leading, {})):
            if number >= MAX_COUNTED:
                return None
            active = (path for path in free if domains.is_active(path, point))
            total += math.prod(len(domains.domain(path, point).values() or ()) for path in active)
        return total

    def shifting(self, chain: object = None) -> list[str]:
        """Axes that are active somewhere but not everywhere, or not within the same bounds.

        Args:
            chain: Only where `methods` is this one; None: in the whole space.
        """
        corners = [one for one in self.corners if chain in (None, one.get("methods"))]
        found: dict[str, list[Flat]] = {path: [] for path in self._axes}

        def note(corner: Flat, path: str, domain: Axis) -> Any:
            found[path].append(domain.as_dict())
            return corner[path]

        # Walked again rather than asked of the whole corner: a sampler meets the bounds that an
        # axis has before the axes after it are chosen.
        for corner in corners:
            self._domains.walk(partial(note, corner))
        return [
            path
            for path, domains in found.items()
            if 0 < len(domains) < len(corners) or any(one != domains[0] for one in domains)
        ]

    @property
    def infinite(self) -> list[str]:
        """Axes whose values cannot be enumerated."""
        # The values of a fraction are counts, though they are known at a point only.
        ranges = {p: axis for p, axis in self._axes.items() if not isinstance(axis, FractionAxis)}
        return [path for path, axis in ranges.items() if axis.values() is None]

    @cached_property
    def _switches(self) -> dict[str, list[Any]]:
        """Axes that others' conditions look at, and the values that make a difference."""
        named: dict[str, list[Any]] = {}
        for axis in self._axes.values():
            for path, allowed in axis.when.items():
                named.setdefault(path, []).extend(allowed)
        if any(method_of(path) for path in self._axes):
            named.setdefault("methods", [])
        out = {}
        for path in (p for p in self._domains.order if p in named):
            axis = self._axes[path]
            if isinstance(axis, ChoiceAxis):
                out[path] = list(axis.options)
            elif isinstance(axis, IntAxis):
                out[path] = sorted({*axis.ends(), *filter(axis.contains, named[path])})
        return out

    def _corners(self) -> Iterator[Flat]:
        for values in product(*self._switches.values()):
            switches = dict(zip(self._switches, values, strict=True))
            for end in (0, -1):
                point = self._corner(switches, end, {})
                yield point
                for path in [p for p in point if p not in switches]:
                    for other_end in range(len(self._domains.domain(path, point).ends())):
                        yield self._corner(switches, end, {path: other_end})

    def _corner(self, switches: Flat, end: int, ends: dict[str, int]) -> Flat:
        """The point with these switches, these axes at their own ends, and the others at `end`."""

        def pick(path: str, domain: Axis) -> Any:
            if path in switches and domain.contains(switches[path]):
                return switches[path]
            values = domain.ends()
            # An axis can have fewer ends here than where its ends were counted.
            return values[min(ends.get(path, end), len(values) - 1)]

        return self._domains.walk(pick)

    def _grid(self, order: Sequence[str], point: Flat) -> Iterator[Flat]:
        if not order:
            yield point
            return
        path, *rest = order
        if not self._domains.is_active(path, point):
            yield from self._grid(rest, point)
            return
        for value in self._domains.domain(path, point).values() or ():
            yield from self._grid(rest, {**point, path: value})
