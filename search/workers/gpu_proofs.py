"""Which of the GPUs that a cluster counts torch can train on, found out by workers themselves."""

import time
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from search.workers.actors import actor_class
from search.workers.pack_worker import PackWorker, WorkerSpec
from search.workers.ray_errors import reason_of
from tcpa_core.errors import DeviceError
from tcpa_core.record.values import Device

PATIENCE_S = 120.0
"""A GPU that gives no place to a worker by then is in use; loading libraries takes seconds."""


def prove_gpus(count: int, factory: str) -> tuple[list[Device], list[str], int]:
    """Have GPUs of the connected cluster prove themselves, as before a study.

    Args:
        count: GPUs that Ray counts.
        factory: As of `WorkerSpec`.

    Returns:
        Devices that torch can train on; sentences on those that it cannot; how many did not answer,
        most likely because somebody uses them.
    """
    spec = WorkerSpec(
        study_dir=Path(),
        cache_dir=None,
        factory=factory,
        count=count,
        slots=1,
        num_cpus=0,
        num_gpus=1,
        env={},
    )
    # All at once, and none ends before the last one: so no two get the same GPU.
    actors = [
        actor_class(PackWorker).options(num_cpus=0, num_gpus=1).remote(spec) for _ in range(count)
    ]
    until = time.monotonic() + PATIENCE_S
    proofs = [(actor.place.remote(), actor.ready.remote()) for actor in actors]
    ray.wait([ready for _, ready in proofs], num_returns=count, timeout=PATIENCE_S)
    found: list[Device] = []
    refused: list[str] = []
    silent = 0
    try:
        for place, ready in proofs:
            try:
                found.append(ray.get(ready, timeout=max(0.1, until - time.monotonic())))
            except ray.exceptions.GetTimeoutError:
                silent += 1
            except RayError as err:
                is_refusal = isinstance(err, RayTaskError) and isinstance(err.cause, DeviceError)
                why = str(err.cause) if is_refusal else reason_of(err)
                refused.append(f"{ray.get(place) if is_refusal else 'a GPU'}: {why}")
    finally:
        for actor in actors:
            ray.kill(actor)
    return found, refused, silent
