"""Which of the GPUs that a cluster counts torch can train on, found out by workers themselves."""

import asyncio
from pathlib import Path

from ray.exceptions import RayError

from search.workers.pack_worker import WorkerSpec
from search.workers.ray_errors import reason_of
from search.workers.worker_handle import WorkerHandle, start_worker
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
    return asyncio.run(_proofs(spec, count))


async def _proofs(spec: WorkerSpec, count: int) -> tuple[list[Device], list[str], int]:
    # All at once, and none ends before the last one: so no two get the same GPU.
    workers = [start_worker(spec, {}) for _ in range(count)]
    proofs = [asyncio.ensure_future(_proof(worker)) for worker in workers]
    await asyncio.wait(proofs, timeout=PATIENCE_S)
    found: list[Device] = []
    refused: list[str] = []
    silent = 0
    for worker, proof in zip(workers, proofs, strict=True):
        if not proof.done():
            silent += 1
            proof.cancel()
            continue
        try:
            found.append(proof.result())
        except DeviceError as err:
            refused.append(f"{worker.place}: {err}")
        except RayError as err:
            refused.append(f"a GPU: {reason_of(err)}")
    for worker in workers:
        worker.kill()
    return found, refused, silent


async def _proof(worker: WorkerHandle) -> Device:
    await worker.find_place()
    if fault := await worker.enter():
        raise DeviceError(fault)
    return await worker.prove()
