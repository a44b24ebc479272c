"""A pack worker: the loop around a worker of `tcpa_core`, and what both are made from."""

import importlib
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.exceptions import RayError

from search.imports import without_gc
from search.workers.cluster_view import MARK
from search.workers.needs import Needs
from search.workers.quarantine import PAUSE_S
from search.workers.reach import answer
from search.workers.sending import Offer
from search.workers.trial_files import FilesSpec, TrialFiles, trial_files
from tcpa_core import plugins
from tcpa_core.config import Flat
from tcpa_core.errors import DataError, PluginError, TcpaError, WeightsError
from tcpa_core.record.events import Event
from tcpa_core.record.values import Device, Pulse, gpu_name
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.commands import Command

if TYPE_CHECKING:
    from tcpa_core.training.stand_ins import StandIns  # loads torch


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How pack workers are made."""

    study_dir: Path
    cache_dir: Path | None
    """As `Placement` has it."""
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
    needs: Needs = Needs()
    """What a node has to show first."""
    offer: Offer | None = None
    """What a node without data or weights is sent; None: nothing."""
    plugins: str = ""
    """As of `tcpa_core.plugins.digest`; "": the same as here."""
    study_id: str = ""
    """Of the study; "": it does not look whether others wait for its places."""
    priority: float = 1.0
    """Of the study where others wait."""
    is_shared: bool = False
    """Others may use the cluster, too: workers end as soon as nothing is left for them."""
    files: FilesSpec = FilesSpec()
    """Where the checkpoints are kept."""
    spares: tuple[Any, ...] = ()
    """Actors of `PackWorkerShell` that are there already; more workers are started."""

    @property
    def mark(self) -> str:
        """The study among what waits for a place, as `Request.study`; "": it is not told apart."""
        return f"{MARK}{self.study_id[:40]}" if self.study_id else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is, before it touches its device."""

    host: str
    device: str
    """As of `tcpa_core.record.values.Device.id`."""
    pid: int
    node: str = ""
    """Ray's id of the node; a host may have several."""

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

    def fingerprints(
        self, data: Sequence[DataConfig], backbones: Sequence[BackboneConfig]
    ) -> Mapping[str, Sequence[str]]:
        """What "data" and "weights" are here, each in the order given."""

    def expect(self, data: Mapping[DataConfig, str], weights: Mapping[BackboneConfig, str]) -> None:
        """Say what data and weights have to be whenever they are loaded."""

    def use(self, stand_ins: "StandIns") -> None:
        """Say what stands for files that this machine may lack; before anything is loaded."""

    def probe(self, trials: Sequence[Flat], share: float) -> list[dict[int, float]]:
        """Speeds of packs for some settings."""

    @property
    def idle(self) -> bool:
        """Whether `work` has nothing to do until another command comes."""

    def work(self) -> Sequence[Event]:
        """Carry out the commands and train one epoch; what has happened."""


class PackWorker:
    """The loop around a worker that trains; `PackWorkerShell` has it in its threads.

    Making one touches no device.

    Args:
        spec: How it is made.
        place: Where it is.
    """

    def __init__(self, spec: WorkerSpec, place: Place) -> None:
        module, _, name = spec.factory.partition(":")
        self._place = place
        self._precisions = spec.precisions
        self._needs = spec.needs
        with without_gc():
            make = getattr(importlib.import_module(module), name)
        device = "cuda" if spec.num_gpus else "cpu"
        self._offer = spec.offer
        check_plugins(spec.plugins)
        # On this machine the driver has used it.
        cache_dir = own_cache(spec.cache_dir) if spec.cache_dir or spec.needs.fingerprints else None
        self._files: TrialFiles = trial_files(spec.study_dir, cache_dir, spec.files)
        self._worker: TrainingWorker = make(self._files.study_dir, cache_dir, device)
        self._fault: TcpaError | RayError | None = None
        """Why a command could not be carried out."""
        if self._offer:
            self._worker.use(self._offer.stand_ins())
        self._wake = threading.Event()
        self._halted = False
        self._ended: Future[None] = Future()
        """Of `run`."""
        self._batch = 0
        """Number of the events that were handed over last."""
        self._is_handing_over = False
        self._inbox: dict[int, Command] = {}
        """Commands that have overtaken another, by their numbers."""
        self._next_command = 1

    def fingerprints(
        self, data: Sequence[DataConfig], backbones: Sequence[BackboneConfig]
    ) -> Mapping[str, Sequence[str]]:
        """What data and weights this node has, as of `TrainingWorker`.

        Raises:
            DataError: Data cannot be read here.
            WeightsError: Weights cannot be read here.
        """
        try:
            found = self._worker.fingerprints(data, backbones)
        except (DataError, WeightsError) as err:
            if self._offer:
                raise
            raise type(err)(f"{err} Or have the driver's sent there: --ship-data.") from err
        if self._offer:
            self._offer.fetch.close()
        return found

    def expect(self, found: Mapping[str, Sequence[str]]) -> None:
        """Say what `fingerprints` of all that the study needs were when a node was proved."""
        needs = self._needs
        self._worker.expect(
            dict(zip(needs.data, found["data"], strict=True)),
            dict(zip(needs.backbones, found["weights"], strict=True)),
        )

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
        pulse = self._worker.pulse()
        return replace(pulse, is_idle=True) if self._is_handing_over else pulse

    def run(self, dispatcher: Any, worker: int) -> None:
        """Train until `halt`, and hand events over as soon as what they tell is on disk.

        Raises:
            StorageError: Checkpoints cannot be written, or taken to where the study keeps them.
        """
        try:
            if self._files.notice:
                ray.get(dispatcher.say_once.remote(self._files.notice))
            try:
                self._run(dispatcher, worker)
            finally:  # also where the device has failed: what is on this node's disk is whole
                self._files.close()
        except BaseException as err:
            self._ended.set_exception(err)
            raise
        self._ended.set_result(None)

    def clear(self) -> None:
        """Remove what killed workers have left on this node, instead of `run`."""
        self._files.close()

    def end(self) -> None:
        """Wait for the end of `run`: for who has called that, and has lost the connection since."""
        self._ended.result()

    def _run(self, dispatcher: Any, worker: int) -> None:
        while not self._halted:
            if self._fault:
                raise self._fault
            # Before the work, not before the wait: a command that comes meanwhile sets it again.
            self._wake.clear()
            events = self._worker.work()
            self._files.keep(events)
            if events:
                self._hand_over(dispatcher, worker, events)
            elif self._worker.idle:
                self._wake.wait()

    def _hand_over(self, dispatcher: Any, worker: int, events: Sequence[Event]) -> None:
        """Hand events over once, however often the network is cut meanwhile."""
        self._batch += 1
        self._is_handing_over = True
        # it leaves out a number that it knows
        answer(partial(dispatcher.push.remote, worker, self._batch, events))
        self._is_handing_over = False

    def command(self, number: int, command: Command) -> None:
        """Hand a command to the worker, with the checkpoints that it needs.

        Args:
            number: Commands are numbered from 1; one that comes again, because its answer was lost
                with a connection, is left out, and one that comes too early waits.
        """
        if number >= self._next_command:
            self._inbox[number] = command
        while self._next_command in self._inbox:
            self._carry_out(self._inbox.pop(self._next_command))
            self._next_command += 1
        self._wake.set()

    def _carry_out(self, command: Command) -> None:
        try:
            self._files.bring(command)
        except (TcpaError, RayError) as err:  # `run` ends of it
            self._fault = err
        else:
            self._worker.take(command)

    def halt(self) -> None:
        """Let `run` return at the next epoch boundary; every trial has its checkpoint there."""
        self._halted = True
        self._wake.set()


def own_cache(cache_dir: Path | None) -> Path:
    """A node's cache folder by the name that all nodes are given; also for what reads TCPA_CACHE.

    Args:
        cache_dir: None: $TCPA_CACHE or ~/.cache/tcpa, which may be there to be read alone.

    Raises:
        DataError: It cannot be written here.
    """
    from tcpa_core.data.base import cache_root, usable_cache  # loads torch

    folder = cache_root(cache_dir).absolute()
    if cache_dir or not folder.is_dir():
        usable_cache(folder)
    os.environ["TCPA_CACHE"] = str(folder)
    return folder


def check_plugins(digest: str) -> None:
    """Refuse a node that has other plug-ins than the driver.

    Args:
        digest: Of the driver's; "": it has none.

    Raises:
        PluginError: The folders are not there, or hold other files.
    """
    if digest and plugins.digest() != digest:
        raise PluginError(
            f"its files below TCPA_PLUGINS={os.environ.get('TCPA_PLUGINS', '')} are not the "
            "driver's; copy the driver's there."
        )
