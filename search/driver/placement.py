"""Where the trials of a study run; changes no result."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from search.driver.cluster_address import AUTO, OPTION, VARIABLE

if TYPE_CHECKING:
    from search.driver.warm_workers import WarmWorkers
    from spaces.sections import Cluster

DeviceKind = Literal["auto", "cuda", "cpu"]
"""GPUs where torch can use some, else processors; GPUs or an error; processors."""

FACTORY = "tcpa_core.training.worker:Worker"
"""What makes the workers that train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where trials run; changes no result."""

    address: str | None = None
    """Ray cluster, HOST:PORT or "auto"; None starts one on this machine."""
    address_source: str = OPTION
    """Where the address comes from: that option, or the variable RAY_ADDRESS."""
    device: DeviceKind = "auto"
    workers: int | None = None
    """Pack workers; None: as many as the GPUs have room for, or one per CPU."""
    gpus_per_worker: float | None = None
    """Part of a GPU that each takes, in (0, 1]; None: a whole one."""
    priority: float = 1.0
    """Of the study, where others wait for places."""
    slots: int | None = None
    """Trials that one worker holds at once; None: as many as still raise
    throughput (see `search.driver.concurrency`)."""
    cache_dir: Path | None = None
    """On each node, as it was written: "~" and variables are those of the node. None: $TCPA_CACHE
    or ~/.cache/tcpa."""
    ship_data: bool = False
    """Nodes of a cluster that lack data or weights are sent the driver's."""
    worker_factory: str = FACTORY
    warm: "WarmWorkers | None" = None
    """Processes of this machine that other studies of the command have used; None: it starts its
    own."""

    def within(self, cluster: "Cluster") -> Self:
        """The same with what a space asks of a cluster, where the user leaves it open."""
        return replace(
            self,
            workers=self.workers or cluster.workers,
            gpus_per_worker=self.gpus_per_worker or cluster.gpus_per_worker,
            priority=cluster.priority,
        )

    @property
    def cluster(self) -> str:
        """The Ray cluster, and where its address comes from, in a clause."""
        if self.address is None:
            return "starts on this machine for this study"
        place = "the cluster of this machine" if self.address == AUTO else self.address
        return f"{place} ({'$' if self.address_source == VARIABLE else ''}{self.address_source})"

    @property
    def gpu_share(self) -> float:
        """Part of a GPU that each worker takes, in (0, 1]."""
        return self.gpus_per_worker or 1.0

    @property
    def num_cpus(self) -> int:
        """CPUs of a Ray that is started for it: each worker takes one."""
        return max(self.workers or 0, os.cpu_count() or 1)

    def num_workers(self, gpus: int, cpus: int) -> int:
        """Workers for a cluster of so many GPUs, or of so many CPUs where `gpus` is 0."""
        if self.workers:
            return self.workers
        # No worker has parts of two GPUs. Three times 0.3333 is meant to be one.
        return gpus * int(1.001 / self.gpu_share) if gpus else max(1, cpus)
