"""A pack worker as Ray sees it: an actor around a worker of `tcpa_core`."""

import importlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray

from search.imports import without_gc
from tcpa_core.config import Flat
from tcpa_core.record.events import Event
from tcpa_core.record.values import Pulse
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


class TrainingWorker(Protocol):
    """What a factory makes, as `tcpa_core.training.worker.Worker`."""

    def take(self, command: Command) -> None:
        """Note a command, from any thread."""

    def pulse(self) -> Pulse:
        """What it is doing, from any thread."""

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
    """

    def __init__(self, spec: WorkerSpec) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(spec.num_cpus)))  # before torch is imported
        module, _, name = spec.factory.partition(":")
        device = "cuda" if spec.num_gpus else "cpu"
        with without_gc():
            make = getattr(importlib.import_module(module), name)
        self._worker: TrainingWorker = make(spec.study_dir, spec.cache_dir, device)
        self._wake = threading.Event()
        self._halted = False

    def ready(self) -> str:
        """Say which process this is, once the worker is made."""
        return f"pid {os.getpid()} on {os.uname().nodename}"

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Speeds of packs by their size for some settings, measured on this worker's device."""
        return self._worker.probe(trials, share)

    def pulse(self) -> Pulse:
        """What the worker is doing; a worker that hangs shows no new signs of life."""
        return self._worker.pulse()

    def run(self, dispatcher: Any, worker: int) -> None:
        """Train until `halt`. Events are handed over before the next epoch, which may be fatal."""
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
