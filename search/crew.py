"""The processes that train the trials of a study; they may start before it is planned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.dispatcher import Dispatcher
from search.pack_worker import WorkerSpec
from spaces.space import Space
from tcpa_core.allocator import WORKER_ENV

SLOTS = 4
"""Trials per worker where nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where trials run; changes no result."""

    address: str | None = None
    """Ray cluster; None starts one on this machine."""
    workers: int | None = None
    """Pack workers; None: one per GPU, or one per CPU where there is no GPU."""
    slots: int | None = None
    """Trials that one worker holds at once; None: as many as pay."""
    cache_dir: Path | None = None
    worker_factory: str = "tcpa_core.worker:Worker"


@dataclass(slots=True)
class Crew:
    """A dispatcher and its workers."""

    dispatcher: Any
    num_workers: int
    num_gpus: float
    """GPUs of the cluster."""

    @property
    def resource(self) -> str:
        """What a worker owns one of."""
        return "GPU" if self.num_gpus else "CPU"


def start_crew(space: Space, folder: Path, placement: Placement) -> Crew:
    """Start the dispatcher and the workers of a study on the cluster that is connected.

    Args:
        folder: Of the study; nothing is written until the first trial is.

    Raises:
        RayError: The cluster does not answer.
    """
    resources = ray.cluster_resources()
    crew = Crew(None, 1, resources.get("GPU", 0.0))
    crew.num_workers = placement.workers or max(1, int(resources.get(crew.resource, 0.0)))
    spec = WorkerSpec(
        study_dir=folder.resolve(),
        cache_dir=placement.cache_dir,
        factory=placement.worker_factory,
        count=crew.num_workers,
        slots=placement.slots or SLOTS,
        num_cpus=1,
        num_gpus=1 if crew.num_gpus else 0,
        env=dict(WORKER_ENV) if placement.address else {},
        silence_s=space.budget.hang_seconds,
    )
    # Beside the driver: with any other node it would be lost, and the driver's run with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Dispatcher).options(
        num_cpus=0, max_concurrency=10_000, scheduling_strategy=here
    )
    metrics = ["duration_s", *(objective.metric for objective in space.objective)]
    crew.dispatcher = actor.remote(spec, metrics, tests_all(space))
    crew.dispatcher.start.remote()
    return crew


def tests_all(space: Space) -> bool:
    """Whether every trial reads the test split when it completes: rows of a table do."""
    return space.ablation is not None and space.ablation.test == "all"
