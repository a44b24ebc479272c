"""What Ray says of a cluster: its nodes, and what waits for a place on them.

Nothing here knows Ray; `search.ray_internals` asks it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Amounts = Mapping[str, float]
"""Resources by Ray's names: "CPU", "GPU", "memory" in bytes, or a cluster's own."""
NODE_ID = "ray.io/node-id"
"""Label that every node has."""
MARK = "tcpa-"
"""How a study is called among the nodes that its workers do not ask for, see `Request.study`."""
TOLERANCE = 1e-4
"""Ray counts in ten-thousandths: three thirds of a GPU are one."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node has."""

    total: Amounts
    free: Amounts


@dataclass(frozen=True, slots=True)
class Request:
    """Tasks, actors or a placement group that wait for a place."""

    shapes: Sequence[Amounts]
    """What is needed at once, each on one node: one thing for a task or an actor."""
    count: int = 1
    """So many of them wait."""
    apart: bool = False
    """Each shape needs a node of its own."""
    not_on: frozenset[str] = frozenset()
    """Ids of the nodes that it must not have."""
    study: str = ""
    """Mark of the study whose worker it is; "": another job asks. Ray adds up what waits by its
    shape and does not say who asks, so a study's workers ask for any node but one that is called
    after the study, which there is not."""

    def can_have(self, nodes: Mapping[str, Node]) -> bool:
        """Whether the nodes could ever have room for it."""
        usable = [node.total for name, node in nodes.items() if name not in self.not_on]
        return all(any(fits(shape, total) for total in usable) for shape in self.shapes)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The nodes by their ids, and all that waits."""

    nodes: Mapping[str, Node]
    requests: Sequence[Request]

    def total(self, resource: str, without: Iterable[str] = ()) -> float:
        """What all nodes have, but for some."""
        left = self.nodes.keys() - set(without)
        return sum(self.nodes[name].total.get(resource, 0.0) for name in left)

    def free(self, resource: str, without: Iterable[str] = ()) -> float:
        """What is free on all nodes, but for some."""
        left = self.nodes.keys() - set(without)
        return sum(self.nodes[name].free.get(resource, 0.0) for name in left)


def fits(shape: Amounts, room: Amounts) -> bool:
    """Whether there is room for a shape."""
    return all(room.get(name, 0.0) + TOLERANCE >= amount for name, amount in shape.items())
