"""Who gets how many places of a cluster, and whose place goes to whom.

Studies say on a board what they hold and want; what other jobs want shows in what Ray has pending.
Every study works out the same shares from the same numbers, so that nobody has to decide for all.
Nothing here knows Ray or waits for anything.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from search.workers.cluster_view import TOLERANCE, Amounts, ClusterView, Request, fits

OTHERS = ""
"""All jobs that are no studies; together they have the priority 1."""
_RESOURCES = ("GPU", "CPU")
"""What is shared, the scarce one first: who gets no GPU needs no CPU beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a study has of a cluster, and what it could use."""

    study: str
    """Its id."""
    name: str
    shape: Amounts
    """What one of its workers takes: "CPU" and perhaps "GPU"."""
    wants: int
    """Workers that it has trials for."""
    held: Mapping[str, int]
    """Workers that have a place, by Ray's id of the node."""
    priority: float = 1.0
    since: float = 0.0
    """When it came, in seconds of Unix time: of equals the first comes first."""

    @property
    def num_held(self) -> int:
        """Workers that have a place."""
        return sum(self.held.values())

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From what `as_dict` gave, of whichever version.

        Raises:
            KeyError, TypeError, ValueError: Something is missing, or no study wrote it.
        """
        numbers = {name: float(values[name]) for name in ("priority", "since")}
        if not (math.isfinite(sum(numbers.values())) and numbers["priority"] > 0):
            raise ValueError(f"not the priority or time of a study: {numbers}")
        return cls(
            study=str(values["study"]),
            name=str(values["name"]),
            shape={str(name): abs(float(one)) for name, one in dict(values["shape"]).items()},
            wants=int(values["wants"]),
            held={str(node): abs(int(one)) for node, one in dict(values["held"]).items()},
            **numbers,
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """What everybody is entitled to while somebody waits."""

    view: ClusterView
    claims: Mapping[str, Claim]
    """Of all studies, by their ids."""
    workers: Mapping[str, int]
    """Workers of each study; at least one, so that none that has begun stands still."""
    others_have: Amounts
    """What other jobs use."""
    others_get: Amounts
    """What they are entitled to."""

    @classmethod
    def of(cls, view: ClusterView, claims: Iterable[Claim]) -> Self:
        """Divide what the nodes have by priority among those who want something."""
        known = {claim.study: claim for claim in claims}
        workers = {study: claim.wants for study, claim in known.items()}
        have: dict[str, float] = {}
        get: dict[str, float] = {}
        foreign = [one for one in view.requests if one.study not in known]
        foreign = [one for one in foreign if one.can_have(view.nodes)]
        for resource in _RESOURCES:
            total = view.total(resource)
            units = {study: claim.shape.get(resource, 0.0) for study, claim in known.items()}
            held = sum(units[study] * claim.num_held for study, claim in known.items())
            have[resource] = max(0.0, total - view.free(resource) - held)
            asked = sum(
                one.count * shape.get(resource, 0.0) for one in foreign for shape in one.shapes
            )
            ranked = sorted(known.values(), key=lambda claim: (claim.since, claim.study))
            bids = [
                _Bid(one.study, units[one.study], workers[one.study], one.priority)
                for one in ranked
                if units[one.study]
            ]
            most = math.ceil(have[resource] + asked - TOLERANCE)
            granted = _divided(total, [*bids, _Bid(OTHERS, 1.0, most, 1.0)])
            get[resource] = float(granted.pop(OTHERS))
            if have[resource] > get[resource]:  # nobody can take that back from them
                granted = _divided(total - have[resource], bids)
            workers |= granted
        return cls(view, known, {s: max(1, n) for s, n in workers.items()}, have, get)

    def waiting(self, me: str) -> list[Request]:
        """What waits of others than a study, and is entitled to more than it has."""
        return [
            one
            for one in self.view.requests
            if one.study != me and self._is_entitled(one, me) and one.can_have(self.view.nodes)
        ]

    def others_wait(self, me: str) -> bool:
        """Whether others wait for what the nodes could have room for, entitled to it or not."""
        others = (one for one in self.view.requests if one.study != me)
        return any(one.can_have(self.view.nodes) for one in others)

    def _is_entitled(self, request: Request, me: str) -> bool:
        claim = self.claims.get(request.study)
        if claim is not None:
            return self.workers[claim.study] > claim.num_held
        contested = [
            name
            for name in _RESOURCES
            if self.claims[me].shape.get(name) and any(shape.get(name) for shape in request.shapes)
        ]
        return bool(contested) and all(
            self.others_get[name] > self.others_have[name] + TOLERANCE for name in contested
        )

    def to_give(
        self, me: str, placed: Mapping[int, str], leaving: Sequence[str] = ()
    ) -> tuple[list[int], str]:
        """Workers of a study whose places others should have, and which others.

        Only such as make room for something that waits, on a node where it may run, and none below
        the study's share.

        Args:
            me: Id of the study.
            placed: Nodes of its workers that have one, those first that it misses least.
            leaving: Nodes of those that are about to end, one for each.

        Returns:
            Their numbers, and whom they are given to; "": nobody.
        """
        room = _Room(self.view, self.claims[me].shape, leaving, placed)
        spare = len(placed) - self.workers[me]
        for_whom: list[str] = []
        for request in self.waiting(me):
            limit = request.count
            if request.study in self.claims:
                other = self.claims[request.study]
                limit = min(limit, self.workers[other.study] - other.num_held)
            for _ in range(limit):
                num_given = len(room.given)
                if not room.place(request, spare - num_given):
                    break
                if len(room.given) > num_given:
                    for_whom.append(self._named(request))
        return room.given, " and ".join(dict.fromkeys(for_whom))

    def is_served(self, me: str, leaving: Sequence[str] = ()) -> bool:
        """Whether all others who wait find room without this study's help, now or in a moment."""
        room = _Room(self.view, self.claims[me].shape, leaving, {})
        return all(
            room.place(request, 0) for request in self.waiting(me) for _ in range(request.count)
        )

    def _named(self, request: Request) -> str:
        claim = self.claims.get(request.study)
        return f"study {claim.name!r}" if claim else "another job"


class _Bid(NamedTuple):
    study: str
    unit: float
    """Of a resource, for each worker."""
    most: int
    """Workers."""
    priority: float


def _divided(total: float, bids: Sequence[_Bid]) -> dict[str, int]:
    """Workers for each bid: one after the other to whom has the least for its priority."""
    if sum(bid.unit * bid.most for bid in bids) <= total + TOLERANCE:
        return {bid.study: bid.most for bid in bids}
    granted = {bid.study: 0 for bid in bids}
    while True:
        open_bids = [
            bid for bid in bids if granted[bid.study] < bid.most and bid.unit <= total + TOLERANCE
        ]
        if not open_bids:
            return granted
        # min: the first of equals, so that every study comes to the same result.
        least = min(open_bids, key=lambda bid: (granted[bid.study] + 1) * bid.unit / bid.priority)
        granted[least.study] += 1
        total -= least.unit


class _Room:
    """What would be free if some workers ended.

    Args:
        view: What is free now.
        shape: What a worker takes.
        leaving: Nodes of workers that are about to end.
        placed: Nodes of the workers that may end, in this order.
    """

    def __init__(
        self, view: ClusterView, shape: Amounts, leaving: Iterable[str], placed: Mapping[int, str]
    ) -> None:
        self._free = {name: dict(node.free) for name, node in view.nodes.items()}
        self._shape = shape
        self._rank = {worker: rank for rank, worker in enumerate(placed)}
        self._left: dict[str, list[int]] = {}
        """Workers that may end, by node, the first of them last."""
        for worker, node in reversed(list(placed.items())):
            self._left.setdefault(node, []).append(worker)
        self.given: list[int] = []
        """Workers that end."""
        for node in leaving:
            if node in self._free:
                _add(self._free[node], shape)

    def place(self, request: Request, spare: int) -> bool:
        """Put a request where the fewest workers have to end; False: so many make no room."""
        done: list[tuple[str, int, Amounts]] = []
        for shape in sorted(request.shapes, key=lambda one: -sum(one.values())):
            used = {node for node, _, _ in done} if request.apart else set()
            nodes = self._free.keys() - request.not_on - used
            ways = [way for node in nodes if (way := self._way(shape, node)) is not None]
            num_ends, _, node = min(ways, default=(spare + 1, [], ""))
            if num_ends > spare:
                self._undo(done)
                return False
            spare -= num_ends
            for _ in range(num_ends):
                self.given.append(self._left[node].pop())
                _add(self._free[node], self._shape)
            _add(self._free[node], shape, -1)
            done.append((node, num_ends, shape))
        return True

    def _way(self, shape: Amounts, node: str) -> tuple[int, list[int], str] | None:
        """How many workers of a node have to end, and which by rank; None: too few are there."""
        room, left, ends = self._free[node], self._left.get(node, []), 0
        if not fits(shape, room):
            room = dict(room)
        while not fits(shape, room):
            if ends == len(left):
                return None
            ends += 1
            _add(room, self._shape)
        return ends, [self._rank[worker] for worker in left[len(left) - ends :]], node

    def _undo(self, done: Sequence[tuple[str, int, Amounts]]) -> None:
        for node, num_ends, shape in reversed(done):
            _add(self._free[node], shape)
            for _ in range(num_ends):
                self._left[node].append(self.given.pop())
                _add(self._free[node], self._shape, -1)


def _add(room: dict[str, float], shape: Amounts, times: int = 1) -> None:
    for name, amount in shape.items():
        room[name] = room.get(name, 0.0) + times * amount
