"""What each node of a cluster has, asked before a study."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from search.workers.needs import DISTRIBUTIONS, PACKAGES, Needs
from search.workers.pack_worker import WorkerSpec
from search.workers.ray_errors import reason_of
from search.workers.shell import PackWorkerShell
from search.workers.worker_handle import WorkerHandle, start_witness
from tcpa_core.command import DISTRIBUTION

PATIENCE_S = 120.0
"""A node that has started no process by then does not answer; hashing data may take longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLook:
    """One node."""

    host: str
    devices: str
    facts: Mapping[str, str]
    """As of `PackWorkerShell.node_facts`."""
    folders: Mapping[str, Any]
    """As of `PackWorkerShell.folders`; {}: it did not answer."""
    sees_root: bool
    """Whether the folder of studies has the same names in it as here."""
    fault: str
    """Why a study would not use it, a clause; "": it would."""

    @property
    def package(self) -> str:
        """Version of our package; "": it is missing."""
        if "sources" not in self.facts:
            return ""
        return self.facts.get(DISTRIBUTION, "of a checkout")


def look_at_nodes(needs: Needs, root: Path, factory: str) -> list[NodeLook]:
    """Have every node of the connected cluster proved, by a process that takes no place.

    Args:
        needs: What a study needs. Data and weights are looked at if it names some.
        root: Folder of studies, absolute.
        factory: As of `WorkerSpec`.
    """
    spec = WorkerSpec(
        study_dir=root,
        cache_dir=None,
        factory=factory,
        count=1,
        slots=1,
        num_cpus=1,
        num_gpus=0,
        env={},
        needs=needs,
    )
    here = PackWorkerShell.folders(str(root))["names"]
    alive = [node for node in ray.nodes() if node["Alive"]]
    return asyncio.run(_looks(spec, alive, here))


async def _looks(spec: WorkerSpec, nodes: list[dict[str, Any]], here: str) -> list[NodeLook]:
    return list(await asyncio.gather(*(_look(spec, node, here) for node in nodes)))


async def _look(spec: WorkerSpec, node: Mapping[str, Any], here: str) -> NodeLook:
    witness = start_witness(spec, node["NodeID"])
    facts: dict[str, str] = {}
    folders: dict[str, Any] = {}
    try:
        await asyncio.wait_for(witness.find_place(), PATIENCE_S)
        facts = await witness.actor.facts.remote(DISTRIBUTIONS, PACKAGES)
        folders = await witness.actor.folders.remote(str(spec.study_dir))
        fault = await _fault(witness)
    except TimeoutError:
        fault = f"it has started no process in {PATIENCE_S:.0f} s"
    except RayError as err:
        fault = reason_of(err)
    finally:
        witness.kill()
    resources = node["Resources"]
    return NodeLook(
        host=witness.place.host if witness.place else node["NodeManagerHostname"],
        devices=f"{resources.get('CPU', 0):.0f} CPU, {resources.get('GPU', 0):.0f} GPU",
        facts=facts,
        folders=folders,
        sees_root=folders.get("names") == here,
        fault=fault,
    )


async def _fault(witness: WorkerHandle) -> str:
    # The package is loaded, which takes seconds, where data and weights are to be read with it.
    if witness.spec.needs.fingerprints:
        return await witness.node_fault()
    return await witness.package_fault()
