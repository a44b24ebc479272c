"""Places trials on pack workers, wherever they run, and carries their events to the driver.

The dispatcher is one asynchronous Ray actor of a study. Workers are Ray actors that own a device
and keep backbone, data and packs warm; one that dies is replaced and its trials go on elsewhere
from their last checkpoint. What is decided stands in `TrialTable`; workers live in `WorkerPool`.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import ray

from search.workers.checkpoint_desk import CheckpointDesk
from search.workers.failure_attribution import WorkerLoss
from search.workers.pack_worker import WorkerSpec
from search.workers.quarantine import Quarantine
from search.workers.sharing import Sharing
from search.workers.sizing import Sizing, Speeds
from search.workers.trial_progress import Report
from search.workers.trial_table import Order, TrialTable
from search.workers.worker_pool import WorkerPool
from tcpa_core.record.events import Epoch, Event, Notice, Planned, Tested, TrialEvent
from tcpa_core.record.values import Device


class Dispatcher:
    """Asynchronous Ray actor; every method may be awaited from anywhere in the cluster.

    The driver's main thread calls `advance`, `stop` and `test`, its thread for events
    `next_events`, and every worker `push`. All run in one event loop, so that each of them is
    whole but where it awaits.

    Args:
        spec: How workers are made.
        metrics: Names of the values that the scheduler and the sampler ask for.
        test_at_end: Whether every trial is scored on the test split when it completes.
        keep_every: As of `Submit`.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        metrics: Sequence[str],
        test_at_end: bool,
        keep_every: int | None = None,
    ) -> None:
        # Workers of hosts that lack the study's folder bring their checkpoints here.
        me = ray.get_runtime_context().current_actor if spec.files.token else None
        self._spec = spec = replace(spec, files=replace(spec.files, dispatcher=me))
        self._desk = CheckpointDesk(spec.study_dir)
        self._said: set[str] = set()
        """Sentences that are said once."""
        quarantine = Quarantine(spec.aside_s)
        self._table = TrialTable(
            metrics,
            spec.slots,
            test_at_end=test_at_end,
            quarantine=quarantine,
            num_gpus=spec.cluster_gpus,
            keep_every=keep_every,
        )
        self._pool = WorkerPool(
            spec,
            on_ready=self._welcome,
            on_refused=self._refuse,
            on_stranded=lambda: self._is_stranded.set(),
            on_lost=self._lose,
            on_fault=self._give_up,
            say=lambda text: self._publish([Notice(text=text)]),
            held_by=self._table.held_by,
            pause_s=quarantine.pause_s,
            can_wait_for=self._table.can_wait_for,
        )
        self._sharing = Sharing(spec, self._pool, self._table, lambda one: self._publish([one]))
        self._arrivals: dict[str, asyncio.Event] = {}
        """Of the trials for which `advance` waits."""
        self._scores: dict[str, asyncio.Future[Tested]] = {}
        """Of the trials for which `test` waits."""
        self._outbox: list[Event] = []
        self._batches: dict[int, int] = {}
        """Calls of `push` that every worker has made."""
        self._told_gpus: float | None = None
        """GPUs held, as the last event said that named them."""
        self._fault: str | None = None
        self._refusals: list[str] = []
        """Sentences on the devices that torch cannot train on."""
        self._has_device = asyncio.Event()
        self._is_stranded = asyncio.Event()
        self._has_fault = asyncio.Event()
        self._sizing: Sizing | None = None
        """How packs are measured; None: they are not."""
        self._speeds: dict[str, asyncio.Future[Speeds]] = {}
        """By the model of device."""
        self._is_resized = asyncio.Event()
        # The event loop keeps weak references only: a task that nobody holds may vanish.
        self._admissions: set[asyncio.Future[None]] = set()
        self._news = asyncio.Event()
        """Set when there is an event or a fault for `next_events`."""

    async def start(self) -> None:
        """Start the workers; they load their libraries while the first trials are sampled."""
        self._start(self._spec.count, self._spec.num_gpus)
        if self._spec.study_id:
            self._sharing.begin()

    async def add_workers(self, count: int, num_gpus: float) -> list[str]:
        """Start workers, each of which waits until the cluster has a place for it; then `stranded`.

        Once one on a GPU is ready, those on processors end at their next epoch boundary and their
        trials move.

        Args:
            num_gpus: Part of a GPU that each takes; 0: they train on processors.
        """
        # In one call with the wait: Ray may carry out two in either order.
        self._start(count, num_gpus)
        return await self.stranded()

    async def has_device(self) -> bool:
        """Wait for the first device that has proved itself, or a fault; False: all were refused."""
        ends = (self._has_device, self._is_stranded, self._has_fault)
        waits = [asyncio.ensure_future(event.wait()) for event in ends]
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return not self._is_stranded.is_set()

    async def held_gpus(self) -> float:
        """GPUs that the workers hold, with fractions."""
        return self._pool.held_gpus

    async def stranded(self) -> list[str]:
        """Wait until no device is left to train on; why not, in a sentence for each."""
        await self._is_stranded.wait()
        return [*self._refusals, *self._pool.node_faults]

    async def measure(self, sizing: Sizing) -> Speeds:
        """Measure packs on a worker of each model of device, before any trial.

        Workers of a model hold as many trials as pay on it. Of one that comes later, the first
        worker is measured before it takes trials.

        Returns:
            Speeds on the first worker; [] where it died of it or did not end.
        """
        self._sizing = sizing
        await self.has_device()
        models = self._pool.models()
        measured = [self._speeds_of(model, worker) for worker, model in models.items()]
        for worker, speeds in zip(models, await asyncio.gather(*measured), strict=True):
            self._send(self._table.allow(sizing.slots(speeds), worker))
        self._is_resized.set()
        return measured[0].result() if measured else []

    async def allow(self, slots: int) -> None:
        """Let every worker hold this many trials at once whose model was not measured."""
        self._send(self._table.allow(slots))

    async def expect(self, num_trials: int) -> None:
        """No trial comes after so many: workers for which none is left end."""
        self._table.expect(num_trials)

    async def extra(self, known: int) -> int:
        """Wait until the places that workers have beyond what `allow` said are not so many."""
        while self._table.extra == known:
            self._is_resized.clear()
            await self._is_resized.wait()
        return self._table.extra

    async def advance(self, planned: Planned, until_epoch: int) -> Report:
        """Let a trial train up to an epoch and wait until it stands there or has ended.

        Args:
            planned: The trial.
            until_epoch: It may train up to and including this epoch.

        Returns:
            `epoch`, the objectives as far as they are known, and `done`; with `status`,
            `num_epochs` and the last epoch's own values (`LAST`) when it has ended. Told in full
            once. A trial whose checkpoint is further on is told as it was at the epoch asked for.
        """
        trial = planned.trial
        self._send(self._table.advance(planned, until_epoch))
        if not self._table.has_arrived(trial):
            await self._arrivals.setdefault(trial, asyncio.Event()).wait()
        return self._table.report(trial, until_epoch)

    async def stop(self, trial: str) -> None:
        """The scheduler ends a trial early; nothing happens if it has ended already."""
        self._send(self._table.stop(trial))

    async def test(self, planned: Planned) -> Tested:
        """Score a finished trial's selected state on the test split."""
        score = self._scores[planned.trial] = asyncio.get_running_loop().create_future()
        self._send(self._table.test(planned))
        return await score

    async def halt(self) -> None:
        """Release everybody who waits and end the workers at their next epoch boundary.

        One that does not come to it in time is killed; its trials keep their last checkpoint.
        """
        self._table.halt()  # first: whoever is released reads there that the study ends
        for arrival in self._arrivals.values():
            arrival.set()
        await asyncio.gather(self._pool.halt(), self._sharing.end())

    async def clear(self) -> None:
        """After `halt`: remove what killed workers have left on nodes."""
        await self._pool.clearing.clear()

    async def push(self, worker: int, batch: int, events: Sequence[Event]) -> None:
        """Take a worker's events, in order.

        Args:
            batch: Counts its calls, from 1; one that comes again, because its answer was lost with
                a connection, is left out.
        """
        if not self._table.is_ready(worker):
            return  # taken for dead; its trials go on elsewhere from their checkpoints
        if batch <= self._batches.get(worker, 0):
            return
        self._batches[worker] = batch
        self._publish(self._table.take(events))
        self._pool.has_worked()
        # One epoch trains meanwhile; a trial that takes a place here can train in the one after.
        self._send(self._table.place())

    async def say_once(self, sentence: str) -> None:
        """Tell the user something that several workers of a host would."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._publish([Notice(text=sentence)])

    async def checkpoints(self, trial: str) -> list[tuple[str, int]]:
        """Names and sizes of a trial's files in the study's folder."""
        return await asyncio.to_thread(self._desk.files, trial)

    async def read_checkpoint(self, trial: str, name: str, start: int) -> bytes:
        """A part of such a file, as of `CheckpointDesk.read`."""
        return await asyncio.to_thread(self._desk.read, trial, name, start)

    async def write_checkpoint(
        self, trial: str, name: str, key: str, start: int, part: bytes, is_last: bool
    ) -> None:
        """Take a part of such a file, as of `CheckpointDesk.write`."""
        await asyncio.to_thread(self._desk.write, trial, name, key, start, part, is_last)

    async def next_events(self, timeout_s: float) -> tuple[list[Event], str | None]:
        """Events since the last call, and the fault that ends the study if there is one.

        Waits a while if there is neither.
        """
        if not self._outbox and not self._fault:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        events, self._outbox = self._outbox, []
        return events, self._fault

    def _publish(self, events: Iterable[Event]) -> None:
        """Hand events to the driver, and wake those who wait for what they tell."""
        for event in events:
            # Before anybody is woken, so that nobody acts on what `next_events` does not give yet.
            self._outbox.append(self._with_gpus(event))
            if isinstance(event, Tested):
                self._scores.pop(event.trial).set_result(event)
            elif isinstance(event, TrialEvent) and self._table.has_arrived(event.trial):
                arrival = self._arrivals.pop(event.trial, None)
                if arrival is not None:
                    arrival.set()
        self._news.set()

    def _with_gpus(self, event: Event) -> Event:
        """The event with the number of GPUs held from here on, where it has changed."""
        # The start of a trial or a notice is at hand when it changes, and an epoch may be dropped.
        if isinstance(event, Epoch) or self._pool.held_gpus == self._told_gpus:
            return event
        self._told_gpus = self._pool.held_gpus
        return replace(event, gpus=self._told_gpus)

    def _send(self, orders: Iterable[Order]) -> None:
        for worker, command in orders:
            self._pool.send(worker, command)

    def _start(self, count: int, num_gpus: float) -> None:
        self._is_stranded.clear()
        self._pool.workers.num_gpus = num_gpus
        for _ in range(count):
            self._pool.start(num_gpus)

    def _welcome(self, worker: int, device: Device) -> None:
        self._has_device.set()
        if self._sizing is None:
            self._admit(worker, device, None)
            return
        speeds = self._speeds_of(device.name, worker)
        # At once where that is known: the worker looks for work next, and of trials that it found
        # one after the other it would train the first by themselves.
        if speeds.done():
            self._admit(worker, device, self._sizing.slots(speeds.result()))
            return
        admission = asyncio.ensure_future(self._admit_measured(worker, device, self._sizing))
        self._admissions.add(admission)
        admission.add_done_callback(self._admissions.discard)

    async def _admit_measured(self, worker: int, device: Device, sizing: Sizing) -> None:
        slots = sizing.slots(await self._speeds_of(device.name, worker))
        if self._pool.has(worker):  # else it was lost meanwhile
            self._admit(worker, device, slots)

    def _admit(self, worker: int, device: Device, slots: int | None) -> None:
        self._send(self._table.welcome(worker, device, slots))
        self._is_resized.set()
        if self._pool.is_on_gpu(worker):
            for other in self._pool.on_processors():
                self._table.close(other)
                self._pool.retire(other)

    def _speeds_of(self, model: str, worker: int) -> "asyncio.Future[Speeds]":
        """Speeds of packs on a model of device, measured once: on this worker, if not before."""
        assert self._sizing is not None
        if model not in self._speeds:
            measured = self._pool.measure(worker, self._sizing.trials, self._sizing.share)
            self._speeds[model] = asyncio.ensure_future(measured)
        return self._speeds[model]

    def _refuse(self, sentence: str) -> None:
        if sentence not in self._refusals:  # two workers may share a device
            self._refusals.append(sentence)
            self._table.count_out_gpu()
            self._publish([Notice(text=sentence)])

    def _lose(self, worker: int, loss: WorkerLoss) -> None:
        events, orders = self._table.lose(worker, loss)
        self._publish(events)
        self._send(orders)
        if self._table.fault is not None:
            resume = f"'tcpa resume {self._spec.study_dir.name}'"
            self._pool.give_up(f"{self._table.fault}; correct that, then {resume}.")
        else:
            self._send(self._table.place())  # others may have places already

    def _give_up(self, fault: str) -> None:
        self._fault = fault
        self._has_fault.set()
        self._news.set()
