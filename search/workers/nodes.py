"""Which nodes of the cluster are used: those that have what the driver planned with.

The first worker that comes to a node asks it, the others wait for the answer. One that lacks
something is left to others: new workers go elsewhere, and it is asked again after a while. What is
wrong with a node is no trial's fault.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import ray

from search.workers.pack_worker import Place

PAUSE_S = 60.0
"""Until a refused node is asked again: somebody copies a folder or installs a package there."""
MAX_PAUSE_S = 3600.0

Step = Literal["package", "files"]
"""What is asked of a node: what is installed there; the data and the weights of the study."""


@dataclass(slots=True)
class _Node:
    """What is known of a node."""

    host: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the worker that asks."""
    passed: set[Step] = field(default_factory=set)
    fault: str = ""
    """Why it is not used, a clause; "": it may be."""
    num_refusals: int = 0


class Nodes:
    """The nodes that workers have come to, by Ray's ids.

    Args:
        say: Called with a sentence on a node that is refused, or that is used again.
        on_change: Called when the nodes that are not to be used are others than before.
        ask_again: Starts a process on a node and has it prove the node; what is wrong.
    """

    def __init__(
        self,
        *,
        say: Callable[[str], None],
        on_change: Callable[[], None],
        ask_again: Callable[[str], Awaitable[str]],
        pause_s: float = PAUSE_S,
    ) -> None:
        self._say = say
        self._on_change = on_change
        self._ask_again = ask_again
        self._pause_s = pause_s
        self._nodes: dict[str, _Node] = {}
        # The event loop keeps weak references only: a task that nobody holds may vanish.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def refused(self) -> set[str]:
        """Ids of the nodes that are not to be used."""
        return {node for node, one in self._nodes.items() if one.fault}

    @property
    def faults(self) -> list[str]:
        """A clause on each of them, with its host."""
        return [f"{self._name(n)}: {one.fault}" for n, one in self._nodes.items() if one.fault]

    async def passes(self, place: Place, step: Step, ask: Callable[[], Awaitable[str]]) -> bool:
        """Whether a worker may stay where it is.

        Args:
            place: Where it is.
            step: What has to be shown next.
            ask: Has the worker show that, if no other one of the node has; what is wrong.
        """
        node = self._nodes.setdefault(place.node, _Node(place.host))
        async with node.lock:
            if not node.fault and step not in node.passed:
                if fault := await ask():
                    self.refuse(place, fault)
                else:
                    node.passed.add(step)
        return not node.fault

    def refuse(self, place: Place, fault: str) -> None:
        """Do without a node until it proves itself.

        Args:
            fault: What is wrong with it, a clause.
        """
        node = self._nodes.setdefault(place.node, _Node(place.host))
        node.passed.clear()
        if node.fault:
            return
        node.fault = fault
        self._say(
            f"{self._name(place.node)} is not used: {fault}; it is asked again in "
            f"{_minutes(self._pause(node))}, then after longer pauses"
        )
        task = asyncio.get_running_loop().create_task(self._follow(place.node, node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._on_change()

    def close(self) -> None:
        """Ask no node again."""
        for task in self._tasks:
            task.cancel()

    async def _follow(self, name: str, node: _Node) -> None:
        """Ask a refused node until it passes or is gone."""
        while node.fault:
            await asyncio.sleep(self._pause(node))
            node.num_refusals += 1
            if name not in await asyncio.to_thread(alive_nodes):
                del self._nodes[name]
                return
            if fault := await self._ask_again(name):
                if fault != node.fault:
                    self._say(f"{self._name(name)} is still not used: {fault}")
                node.fault = fault
            else:
                node.fault = ""
                node.passed = {"package", "files"}
                self._say(f"{self._name(name)} is used from here on: it has what the study needs")
                self._on_change()

    def _name(self, name: str) -> str:
        """A node's host, and its id where the host has several."""
        host = self._nodes[name].host
        is_one = sum(one.host == host for one in self._nodes.values()) == 1
        return host if is_one else f"{host} (node {name[:8]})"

    def _pause(self, node: _Node) -> float:
        return min(self._pause_s * 2**node.num_refusals, MAX_PAUSE_S)


def alive_nodes(num_cpus: float = 0.0, num_gpus: float = 0.0) -> set[str]:
    """Ids of the cluster's nodes that are so large, whoever uses them at the moment."""
    return {
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0.0) >= num_cpus
        and node["Resources"].get("GPU", 0.0) >= num_gpus
    }


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
