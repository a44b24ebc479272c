"""A pack worker as Ray sees it: an actor around a worker of `tcpa_core`."""

import importlib
import os
import platform
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray

from search.imports import without_gc
from search.workers.quarantine import PAUSE_S
from tcpa_core.config import Flat
from tcpa_core.record.events import Event
from tcpa_core.record.values import Device, Pulse, gpu_name
from tcpa_core.training.commands import Command


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How pack workers are made."""

    study_dir: Path
    cache_dir: Path | None
    factory: str
    """"module:name" of a callable (study_dir, cache_dir, device) -> worker."""
    count: int
    slots: int
    """Trials that one worker holds at once."""
    num_cpus: float
    num_gpus: float
    env: dict[str, str]
    """Environment variables of the worker processes, beside what they inherit."""
    silence_s: float | None = None
    """Time without a sign of life after which a worker is taken for hung; None: see `Watchdog`."""
    cluster_gpus: int = 0
    """GPUs when the study starts, those without a worker too."""
    aside_s: float = PAUSE_S
    """Until a device that is set aside is tried again for the first time."""
    precisions: tuple[str, ...] = ("auto",)
    """Values of `train.precision` among the trials: devices have to show products in each."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is, before it touches its device."""

    host: str
    device: str
    """As of `tcpa_core.record.values.Device.id`."""
    pid: int

    def __str__(self) -> str:
        return self.gpu or f"the processor of {self.host}"

    @property
    def gpu(self) -> str:
        """Name of the GPU; "": it is a processor."""
        return gpu_name(self.device, self.host)


class TrainingWorker(Protocol):
    """What a factory makes, as `tcpa_core.training.worker.Worker`."""

    def take(self, command: Command) -> None:
        """Note a command, from any thread."""

    def pulse(self) -> Pulse:
        """What it is doing, from any thread."""

    def prove(self, precisions: Collection[str]) -> Device:
        """Show that it can train on its device; DeviceError: it cannot."""

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Speeds of packs for some settings."""

    @property
    def idle(self) -> bool:
        """Whether `work` has nothing to do until another command comes."""

    def work(self) -> Sequence[Event]:
        """Carry out the commands and train one epoch; what has happened."""


class PackWorker:
    """A loop in one thread, commands in another, and a third that always answers.

    Ray calls `run` and `command` in the two threads of the default group, `pulse` in one of its
    own: it answers while both others stand.

    Making one touches no device, so that `place` answers also where the device would not.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(spec.num_cpus)))  # before torch is imported
        module, _, name = spec.factory.partition(":")
        device = "cuda" if spec.num_gpus else "cpu"
        self._place = Place(platform.node(), _gpu_id() if spec.num_gpus else "cpu", os.getpid())
        self._precisions = spec.precisions
        with without_gc():
            make = getattr(importlib.import_module(module), name)
        self._worker: TrainingWorker = make(spec.study_dir, spec.cache_dir, device)
        self._wake = threading.Event()
        self._halted = False

    def place(self) -> Place:
        """Say where this process is, once the worker is made."""
        return self._place

    def ready(self) -> Device:
        """Prove the device; trials may come from here on.

        Raises:
            DeviceError: torch cannot train on it.
        """
        return replace(
            self._worker.prove(self._precisions), host=self._place.host, id=self._place.device
        )

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Speeds of packs by their size for some settings, measured on this worker's device."""
        return self._worker.probe(trials, share)

    def pulse(self) -> Pulse:
        """What the worker is doing; a worker that hangs shows no new signs of life."""
        return self._worker.pulse()

    def run(self, dispatcher: Any, worker: int) -> None:
        """Train until `halt`, and hand events over as soon as what they tell is on disk."""
        while not self._halted:
            # Before the work, not before the wait: a command that comes meanwhile sets it again.
            self._wake.clear()
            events = self._worker.work()
            if events:
                ray.get(dispatcher.push.remote(worker, events))
            elif self._worker.idle:
                self._wake.wait()

    def command(self, command: Command) -> None:
        """Hand a command to the worker."""
        self._worker.take(command)
        self._wake.set()

    def halt(self) -> None:
        """Let `run` return at the next epoch boundary; every trial has its checkpoint there."""
        self._halted = True
        self._wake.set()


def _gpu_id() -> str:
    """What Ray calls the GPU that it has given to this process."""
    ids = ray.get_runtime_context().get_accelerator_ids() if ray.is_initialized() else {}
    return ",".join(ids.get("GPU", ())) or os.environ.get("CUDA_VISIBLE_DEVICES", "0")
