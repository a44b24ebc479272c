"""Nodes on which no worker has been left to remove what killed ones have left there.

A worker that is killed, or released while it loads, does not come to that. So at the end of a study
a process looks there that takes no place of a worker.
"""

import asyncio
from collections import Counter
from contextlib import suppress

from ray.exceptions import RayError

from search.workers.pack_worker import WorkerSpec
from search.workers.worker_handle import start_witness

CLEAR_S = 20.0
"""How long the end of a study waits for that; most of the time goes into loading libraries."""


class NodeClearing:
    """The nodes on which workers have begun that did not end in order.

    Args:
        spec: How workers are made.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._begun: Counter[str] = Counter()

    def begin(self, node: str) -> None:
        """A worker has a place on a node."""
        self._begun[node] += 1

    def end(self, node: str) -> None:
        """It has ended in order, and removed what it found."""
        self._begun[node] -= 1

    @property
    def nodes(self) -> list[str]:
        """Ids of the nodes to look at."""
        files = self._spec.files
        if not (files.storage or files.token):  # there is one node, which has the study's folder
            return []
        return [node for node, count in self._begun.items() if count > 0]

    async def clear(self) -> None:
        """Remove there what the study has, after all workers have ended."""
        looks = [asyncio.create_task(self._clear(node)) for node in self.nodes]
        if looks:
            _, pending = await asyncio.wait(looks, timeout=CLEAR_S)
            for look in pending:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _clear(self, node: str) -> None:
        witness = start_witness(self._spec, node)
        try:
            with suppress(RayError):  # the node is gone, and with it what was there
                await witness.find_place()
                if not (await witness.package_fault() or await witness.enter()):
                    await witness.actor.clear.remote()
        finally:
            witness.kill()
