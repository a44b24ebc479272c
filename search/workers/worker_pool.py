"""Starts pack workers, follows each to its end and replaces those that are lost.

All of it runs in the event loop of the dispatcher's actor: a method is interrupted by another only
where it awaits, so that no state here needs a lock.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.workers.actors import actor_class
from search.workers.failure_attribution import WorkerLoss
from search.workers.pack_worker import PackWorker, Place, WorkerSpec
from search.workers.ray_errors import loss_of
from search.workers.watchdog import Watchdog
from tcpa_core.config import Flat
from tcpa_core.errors import DeviceError, MethodError, StorageError
from tcpa_core.record.values import Device, Pulse
from tcpa_core.training.commands import Command

MAX_FAILED_STARTS = 3
"""Workers in a row that may die before they take a trial, while none trains; then the study is
given up."""
HALT_S = 10.0
"""How long a halt waits for the end of the epochs; a preempted job is often given 30 s in all."""
PROOF_S = 300.0
"""A device that has not multiplied two matrices by then is sick; most of the time goes into loading
libraries from a slow disk."""
GRACE_S = 60.0
"""How long workers that have no place yet are waited for, once all the others were refused."""
PROBE_S = 600.0
"""A probe of all kinds of packs takes seconds for each, and data may have to be decoded first."""
LOOK_S = 1.0
"""Between two looks at a device that is set aside."""
DEATH_S = 15.0
"""How long a killed worker is waited for, so that no two have the same trial."""
PULSE = "pulse"
"""The thread of a worker that always answers."""

Task = Coroutine[object, None, None]


@dataclass(slots=True)
class WorkerState:
    """A pack worker as the pool knows it."""

    actor: Any
    num_gpus: float
    """It trains on a GPU or a part of one; 0: on a processor."""
    place: Place | None = None
    """None: it waits for one, or loads its libraries."""
    device: Device | None = None
    """What it has proved that it trains on; None: nothing yet."""
    is_retired: bool = False
    """Ends at its next epoch boundary; nobody replaces it."""
    hung_in: tuple[str, ...] = ()
    """Trials of the epoch that did not end, if it is killed for that."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process of a killed worker has ended, or is waited for no longer."""


class WorkerPool:
    """The pack workers of a study, by their numbers.

    Args:
        spec: How they are made.
        on_ready: Called with a worker that takes trials from here on, and what it trains on.
        on_refused: Called with a sentence on a device that torch cannot train on.
        on_stranded: Called when such devices are all that there is.
        on_lost: Called with a worker that is gone, and how it was lost.
        on_fault: Called with what ends the study: no worker starts, or every one would die.
        held_by: The trials that a worker holds.
        pause_s: Seconds for which a GPU of this name is set aside; 0: it may be used.
        can_wait_for: Whether a GPU of this name has been in use, and others are.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        on_ready: Callable[[int, Device], None],
        on_refused: Callable[[str], None],
        on_stranded: Callable[[], None],
        on_lost: Callable[[int, WorkerLoss], None],
        on_fault: Callable[[str], None],
        held_by: Callable[[int], Collection[str]],
        pause_s: Callable[[str], float],
        can_wait_for: Callable[[str], bool],
    ) -> None:
        self._spec = spec
        self._on_ready = on_ready
        self._on_refused = on_refused
        self._on_stranded = on_stranded
        self._on_lost = on_lost
        self._on_fault = on_fault
        self._held_by = held_by
        self._pause_s = pause_s
        self._can_wait_for = can_wait_for
        self._workers: dict[int, WorkerState] = {}
        self._parked: list[WorkerState] = []
        """They keep devices that are not to be used, so that Ray gives them to no other worker."""
        self._num_started = 0
        self._failed_starts = 0
        self._is_closed = False
        """Halted or at fault: nobody is replaced any longer."""
        # The event loop keeps weak references only: a task that nobody holds may vanish.
        self._tasks: set[asyncio.Task[None]] = set()
        self._guards: set[asyncio.Task[None]] = set()

    def start(self, num_gpus: float) -> None:
        """Start one worker more; it waits until the cluster has a place for it.

        Args:
            num_gpus: Part of a GPU that it takes; 0: it trains on a processor.
        """
        spec = replace(self._spec, num_gpus=num_gpus)
        actor = actor_class(PackWorker, concurrency_groups={PULSE: 1}).options(
            num_cpus=spec.num_cpus,
            num_gpus=num_gpus,
            max_concurrency=2,  # one thread trains, one takes commands in their order
            runtime_env={"env_vars": spec.env} if spec.env else None,
        )
        number = self._num_started
        self._num_started += 1
        self._workers[number] = WorkerState(actor.remote(spec), num_gpus)
        self._keep(self._watch(number), self._tasks)

    def send(self, number: int, command: Command) -> None:
        """Send a command; a worker that refuses one is broken, and `_watch` sees its end."""
        actor = self._workers[number].actor
        sent = actor.command.remote(command)  # here, not in the task: commands keep their order

        async def check() -> None:
            try:
                await sent
            except RayTaskError:
                ray.kill(actor)
            except RayError:
                pass  # it died: `_watch` has its trials moved

        self._keep(check(), self._tasks)

    def has_worked(self) -> None:
        """A worker has got through a start and more: those that failed before do not count."""
        self._failed_starts = 0

    def models(self) -> dict[int, str]:
        """Models of the devices of the workers that are ready."""
        workers = self._workers.items()
        return {number: worker.device.name for number, worker in workers if worker.device}

    def has(self, number: int) -> bool:
        """Whether a worker is still there."""
        return number in self._workers

    async def measure(
        self, number: int, trials: Sequence[Flat], share: float
    ) -> list[dict[int, float]]:
        """Speeds of packs on a worker's device, as of `tcpa_core.training.worker.Worker.probe`.

        [] where it died of it or did not end.
        """
        if number not in self._workers:
            return []
        actor = self._workers[number].actor
        try:
            speeds: list[dict[int, float]] = await asyncio.wait_for(
                actor.probe.remote(trials, share), PROBE_S
            )
            return speeds
        except TimeoutError:
            ray.kill(actor)
        except RayError as err:
            if isinstance(err, MethodError):  # all its trials would meet it
                self.give_up(str(err.cause) if isinstance(err, RayTaskError) else str(err))
            ray.kill(actor)  # its device may have failed: `_watch` replaces it
        return []

    def on_processors(self) -> list[int]:
        """Numbers of the workers that train on processors and are to stay."""
        workers = self._workers.items()
        return [n for n, worker in workers if not worker.num_gpus and not worker.is_retired]

    def is_on_gpu(self, number: int) -> bool:
        """Whether a worker trains on a GPU."""
        return bool(self._workers[number].num_gpus)

    def retire(self, number: int) -> None:
        """Let a worker end at its next epoch boundary; `on_lost` tells when it has."""
        worker = self._workers[number]
        worker.is_retired = True
        if worker.device:
            worker.actor.halt.remote()
        else:
            ray.kill(worker.actor)

    @property
    def held_gpus(self) -> float:
        """GPUs, or parts of some, that no other work can have, those that are not used too."""
        placed = [worker for worker in self._workers.values() if worker.place]
        return sum(worker.num_gpus for worker in (*placed, *self._parked))

    async def halt(self) -> None:
        """End the workers at their next epoch boundary, and kill those that do not come to it."""
        self._is_closed = True
        for guard in self._guards:
            guard.cancel()
        for worker in list(self._workers.values()):
            if worker.device:
                worker.actor.halt.remote()
            else:  # perhaps it waits for resources that never come
                ray.kill(worker.actor)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=HALT_S)
        for worker in (*self._workers.values(), *self._parked):
            ray.kill(worker.actor)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, number: int) -> None:
        """Follow a worker from its start to its end, which only a fault or `halt` brings."""
        worker = self._workers[number]
        try:
            worker.place = await worker.actor.place.remote()
            if not await self._may_try(number):
                return
            worker.device = await self._proof(worker)
            self._failed_starts = 0
            self._keep(self._guard(number), self._guards)
            self._on_ready(number, worker.device)
            await worker.actor.run.remote(ray.get_runtime_context().current_actor, number)
        except RayError as err:
            # Where `run` raised, the process lives on and holds its device.
            with contextlib.suppress(RayError):
                ray.kill(worker.actor)
            if isinstance(err, StorageError):  # every worker would meet it
                self.give_up(str(err.cause) if isinstance(err, RayTaskError) else str(err))
            self._lose(number, loss_of(err))
        except DeviceError as err:  # of the proof; one that `run` raises is one of Ray, too
            self._refuse(number, str(err))
        else:
            if worker.is_retired:
                ray.kill(worker.actor)
                self._lose(number, WorkerLoss("its trials move to GPUs", is_wanted=True))
            self._workers.pop(number, None)

    async def _may_try(self, number: int) -> bool:
        """Wait while a worker's device is set aside; False: another worker takes its place.

        Ray would give the device to the next worker, so this one keeps it, and does not touch it.
        """
        worker = self._workers[number]
        gpu = worker.place.gpu if worker.place else ""
        while self._pause_s(gpu) > 0 and not self._is_closed:
            # With fewer workers than GPUs another one may be free.
            if await asyncio.to_thread(_is_free, worker.num_gpus):
                self._parked.append(self._workers.pop(number))
                self.start(worker.num_gpus)
                return False
            await asyncio.sleep(min(LOOK_S, self._pause_s(gpu)))
        return True

    async def _proof(self, worker: WorkerState) -> Device:
        try:
            device: Device = await asyncio.wait_for(worker.actor.ready.remote(), PROOF_S)
        except TimeoutError:
            why = f"it has not answered for {PROOF_S:.0f} s; see 'nvidia-smi -q'"
            raise DeviceError(why) from None
        except RayTaskError as err:
            if isinstance(err.cause, DeviceError):
                raise err.cause from None
            raise
        return device

    def _refuse(self, number: int, why: str) -> None:
        """Do without a worker whose device torch cannot train on, and without the device."""
        worker = self._workers[number]
        if worker.place and self._can_wait_for(worker.place.gpu):
            ray.kill(worker.actor)
            self._lose(number, WorkerLoss(why))
            return
        del self._workers[number]
        self._parked.append(worker)
        if self._is_closed:
            return
        self._on_refused(f"{worker.place} is not used: {why}")
        self._keep(self._look_around(), self._guards)

    async def _look_around(self) -> None:
        """See whether anything is left to train on."""
        # A worker without a place may only be slow to load; or no device may be left for it.
        num_started = -1
        while self._workers and num_started != self._num_started:
            if any(worker.place for worker in self._workers.values()):
                return
            num_started = self._num_started
            await asyncio.sleep(GRACE_S)
        if any(worker.place for worker in self._workers.values()):
            return
        # Whatever takes over needs their memory and their cores.
        for worker in self._parked:
            ray.kill(worker.actor)
        self._parked.clear()
        self._on_stranded()

    async def _guard(self, number: int) -> None:
        """Kill a worker that shows no sign of life for too long."""
        worker, watchdog = self._workers[number], Watchdog(self._spec.silence_s)
        pulse: Pulse | None = Pulse()
        while not watchdog.hangs(pulse):
            await asyncio.sleep(watchdog.pause_s)
            if number not in self._workers:
                return
            pulse = await self._ask_pulse(worker, max(1.0, watchdog.pause_s))
        trials = pulse.trials if pulse else ()
        # A process that does not answer cannot say which trials it trains: all count that it holds.
        worker.hung_in = tuple(sorted(trials or self._held_by(number)))
        what = f"epoch {pulse.epoch}" if pulse and trials else "the work"
        where = f"pid {worker.place.pid} on {worker.place.host}" if worker.place else ""
        usual = f"{watchdog.usual_s:.1f} s" if watchdog.usual_s is not None else "not known yet"
        reason = (
            f"hung: {watchdog.silent_s:.0f} s without a step in {what} of "
            f"{', '.join(worker.hung_in) or 'no trial'}, {where}; longest epoch {usual}"
        )
        ray.kill(worker.actor)
        with contextlib.suppress(TimeoutError):  # some processes cannot even die
            await asyncio.wait_for(worker.gone.wait(), DEATH_S)
        worker.gone.set()
        self._lose(number, WorkerLoss(reason, hung_in=worker.hung_in))

    async def _ask_pulse(self, worker: WorkerState, timeout_s: float) -> Pulse | None:
        """The worker's pulse; None: it does not answer, whatever it is doing."""
        ask = worker.actor.pulse.options(concurrency_group=PULSE).remote
        try:
            pulse: Pulse = await asyncio.wait_for(ask(), timeout_s)
            return pulse
        except (TimeoutError, RayError):
            return None

    def _lose(self, number: int, loss: WorkerLoss) -> None:
        """Replace a worker that is gone."""
        worker = self._workers.get(number)
        if worker is None:
            return
        # `_watch` and `_guard` both meet the end of a worker that hung. `_guard` waits for the word
        # of `_watch` that the process has ended, then comes here itself, as it knows the reason.
        if worker.hung_in and not worker.gone.is_set():
            worker.gone.set()
            return
        del self._workers[number]
        if self._is_closed:
            return  # `halt` kills those that still load; that is no failed start
        if not (worker.device or worker.is_retired or loss.with_node):
            self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            self.give_up(
                f"{self._failed_starts} workers in a row could not start ({loss.reason}); correct "
                f"that, then 'tcpa resume {self._spec.study_dir.name}'."
            )
            return
        if worker.place and not worker.device:
            loss = replace(loss, gpu=worker.place.gpu)
        self._on_lost(number, loss)
        if not (worker.is_retired or self._is_closed):
            self.start(worker.num_gpus)

    def give_up(self, text: str) -> None:
        """Replace nobody any longer: the study cannot go on."""
        self._is_closed = True
        self._on_fault(text)

    @staticmethod
    def _keep(coroutine: Task, tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _is_free(num_gpus: float) -> bool:
    """Whether the cluster could place another worker at once."""
    return float(ray.available_resources().get("GPU", 0.0)) >= num_gpus
