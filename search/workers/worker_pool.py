"""Starts pack workers, follows each to its end and replaces those that are lost.

All of it runs in the event loop of the dispatcher's actor: a method is interrupted by another only
where it awaits, so that no state here needs a lock.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace

import ray
from ray.exceptions import RayError, RayTaskError

from search.workers.cluster_view import NODE_ID
from search.workers.failure_attribution import WorkerLoss
from search.workers.node_clearing import NodeClearing
from search.workers.nodes import Nodes, alive_nodes
from search.workers.pack_worker import WorkerSpec
from search.workers.ray_errors import loss_of, reason_of
from search.workers.roster import Roster
from search.workers.worker_handle import WorkerHandle, start_witness, start_worker
from tcpa_core.config import Flat
from tcpa_core.errors import DeviceError, MethodError, NodeError, StorageError
from tcpa_core.record.values import Device
from tcpa_core.training.commands import Command

MAX_FAILED_STARTS = 3
"""Workers in a row that may die on a node before they take a trial; then the node is refused."""
HALT_S = 10.0
"""How long a halt waits for the end of the epochs; a preempted job is often given 30 s in all."""
GRACE_S = 60.0
"""How long workers that have no place yet are waited for, once all the others were refused."""
LOOK_S = 1.0
"""Between two looks at a device that is set aside."""
DEATH_S = 15.0
"""How long a killed worker is waited for, so that no two have the same trial."""

Task = Coroutine[object, None, None]


class WorkerPool:
    """The pack workers of a study, by their numbers.

    Args:
        spec: How they are made.
        on_ready: Called with a worker that takes trials from here on, and what it trains on.
        on_refused: Called with a sentence on a device that torch cannot train on.
        on_stranded: Called when such devices, or nodes without what the study needs, are all that
            there is for workers on GPUs.
        on_lost: Called with a worker that is gone, and how it was lost.
        on_fault: Called with what ends the study: no node can be used, or every worker would die.
        say: Called with a sentence on a node.
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
        say: Callable[[str], None],
        held_by: Callable[[int], Collection[str]],
        pause_s: Callable[[str], float],
        can_wait_for: Callable[[str], bool],
    ) -> None:
        self._spec = replace(spec, spares=())
        self._spares = list(spec.spares)
        """Processes that wait for a study, for the first workers."""
        self._on_ready = on_ready
        self._on_refused = on_refused
        self._on_stranded = on_stranded
        self._on_lost = on_lost
        self._on_fault = on_fault
        self._held_by = held_by
        self._pause_s = pause_s
        self._can_wait_for = can_wait_for
        self._nodes = Nodes(say=say, on_change=self._renew, ask_again=self._ask_again)
        self.clearing = NodeClearing(spec)
        self.workers = Roster(spec.num_gpus)
        self._parked: list[WorkerHandle] = []
        """They keep devices that are not to be used, so that Ray gives them to no other worker."""
        self._found: Mapping[str, Sequence[str]] = {}
        """Fingerprints of all data and weights, as the first node has shown them."""
        self._dropped: list[WorkerHandle] = []
        """They have been told to end."""
        self._num_started = 0
        self._most_here: int | None = None
        """Workers that may have places on the nodes of today; None: all."""
        self._nodes_now: Collection[str] = ()
        """Ids of those nodes."""
        self._failed_starts: Counter[str] = Counter()
        """By the id of the node; "": they had no place yet."""
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
        is_held_back = self._most_here is not None and self.workers.num_here >= self._most_here
        number = self._num_started
        self._num_started += 1
        spec = replace(self._spec, num_gpus=num_gpus)
        worker = self.workers[number] = self._made(spec, self._selector(is_held_back))
        worker.is_held_back = is_held_back
        self._keep(self._watch(number, worker), self._tasks)
        if self._nodes.refused:
            self._keep(self._look_around(), self._guards)

    def _made(self, spec: WorkerSpec, selector: dict[str, str]) -> WorkerHandle:
        if self._spares:
            return WorkerHandle(self._spares.pop(), spec, selector)
        return start_worker(spec, selector)

    def send(self, number: int, command: Command) -> None:
        """Send a command to a worker."""
        self._keep(self.workers[number].send(command), self._tasks)

    def has_worked(self) -> None:
        """A worker has got through a start and more: those that failed before do not count."""
        self._failed_starts.clear()

    @property
    def node_faults(self) -> list[str]:
        """A clause on each node that is not used."""
        return self._nodes.faults

    def models(self) -> dict[int, str]:
        """Models of the devices of the workers that are ready."""
        workers = self.workers.items()
        return {number: worker.device.name for number, worker in workers if worker.device}

    def has(self, number: int) -> bool:
        """Whether a worker is still there."""
        return number in self.workers

    async def measure(
        self, number: int, trials: Sequence[Flat], share: float
    ) -> list[dict[int, float]]:
        """Speeds of packs on a worker's device, as of `tcpa_core.training.worker.Worker.probe`.

        [] where it died of it or did not end.
        """
        if number not in self.workers:
            return []
        worker = self.workers[number]
        try:
            return await worker.probe(trials, share)
        except TimeoutError:
            worker.kill()
        except RayError as err:
            if isinstance(err, MethodError):  # all its trials would meet it
                self.give_up(str(err.cause) if isinstance(err, RayTaskError) else str(err))
            worker.kill()  # its device may have failed: `_watch` replaces it
        return []

    def on_processors(self) -> list[int]:
        """Numbers of the workers that train on processors and are to stay."""
        workers = self.workers.items()
        return [n for n, worker in workers if not worker.num_gpus and not worker.is_retired]

    def is_on_gpu(self, number: int) -> bool:
        """Whether a worker trains on a GPU."""
        return bool(self.workers[number].num_gpus)

    @property
    def refused(self) -> set[str]:
        """Ids of the nodes that are not used."""
        return self._nodes.refused

    def hold_back(self, most: int | None, nodes: Collection[str]) -> None:
        """Let so many workers have places on the nodes of today; the others wait for new nodes.

        They stay visible to whoever starts nodes by need.

        Args:
            most: Those that have a place included; None: all of them.
            nodes: Ids of the nodes of today.
        """
        self._most_here, self._nodes_now = most, nodes
        for number in reversed(self.workers.waiting):
            is_room = most is None or self.workers.num_here < most
            if self.workers[number].is_held_back and is_room:
                self._leave(number)
        for number in reversed(self.workers.waiting):
            is_full = most is not None and self.workers.num_here > most
            if not self.workers[number].is_held_back and is_full:
                self._leave(number)

    def drop(self, number: int) -> None:
        """End a worker that holds no trial; nobody replaces it."""
        worker = self.workers.pop(number)
        if worker.device:  # it waits for work, so that this is done at once
            self._dropped.append(worker)
            worker.actor.halt.remote()
        else:
            worker.kill()

    def retire(
        self, number: int, why: str = "its trials move to GPUs", *, again: bool = False
    ) -> None:
        """Let a worker end at its next epoch boundary; `on_lost` tells when it has.

        Args:
            why: A clause.
            again: Another one waits for a place from then on.
        """
        worker = self.workers[number]
        worker.is_retired, worker.is_replaced, worker.why = True, again, why
        if worker.device:
            worker.actor.halt.remote()
        else:
            worker.kill()

    @property
    def held_gpus(self) -> float:
        """GPUs, or parts of some, that no other work can have, those that are not used too."""
        placed = [worker for worker in self.workers.values() if worker.place]
        return sum(worker.num_gpus for worker in (*placed, *self._parked))

    async def halt(self) -> None:
        """End the workers at their next epoch boundary, and kill those that do not come to it."""
        self._is_closed = True
        self._nodes.close()
        for guard in self._guards:
            guard.cancel()
        for worker in list(self.workers.values()):
            if worker.device:
                worker.actor.halt.remote()
            else:  # perhaps it waits for resources that never come
                worker.kill()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=HALT_S)
        for worker in (*self.workers.values(), *self._parked, *self._dropped):
            worker.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, number: int, worker: WorkerHandle) -> None:
        """Follow a worker from its start to its end, which only a fault or `halt` brings."""
        try:
            if not await self._may_stay(number, worker):
                return
            device = await worker.prove()
            self._failed_starts.clear()
            self._keep(self._guard(number), self._guards)
            self._on_ready(number, device)
            await worker.run(ray.get_runtime_context().current_actor, number)
        except RayError as err:
            # Where `run` raised, the process lives on and holds its device.
            with contextlib.suppress(RayError):
                worker.kill()
            self._lose(number, self._loss(worker, err))
        except DeviceError as err:  # of the proof; one that `run` raises is one of Ray, too
            self._refuse(number, str(err))
        else:
            if worker.is_retired:
                worker.kill()
                self._lose(number, WorkerLoss(worker.why, is_wanted=True))
            if worker in self._dropped:
                self._dropped.remove(worker)
                worker.kill()  # its device is for others now
            if worker.place:
                self.clearing.end(worker.place.node)
            self.workers.pop(number, None)

    def _loss(self, worker: WorkerHandle, err: RayError) -> WorkerLoss:
        """How a worker was lost; its node is refused if that is the cause."""
        cause = err.cause if isinstance(err, RayTaskError) else None
        if not (worker.place and isinstance(cause, NodeError | OSError | StorageError)):
            return loss_of(err)
        node = worker.place.node
        if isinstance(cause, NodeError) or any(
            one.device and one.place and one.place.node != node for one in self.workers.values()
        ):
            self._nodes.refuse(worker.place, reason_of(err))
            return replace(loss_of(err), of_node=True)
        if isinstance(cause, StorageError):  # every worker would meet it
            self.give_up(str(cause))
        return loss_of(err)

    async def _may_stay(self, number: int, worker: WorkerHandle) -> bool:
        """Wait for a worker's place and see whether it may be used; False: another is sought."""
        place = await worker.find_place()
        self.clearing.begin(place.node)
        if not await self._nodes.passes(place, "package", worker.package_fault):
            self._leave(number)
            return False
        if fault := await worker.enter():
            self._nodes.refuse(place, fault)
        if not await self._nodes.passes(place, "files", worker.files_fault):
            self._leave(number)
            return False
        self._found = worker.found or self._found
        await worker.expect(self._found)
        return await self._may_try(number)

    def _leave(self, number: int) -> None:
        """End a worker on a node that is not used; another one looks for a place elsewhere."""
        worker = self.workers.pop(number, None)
        if worker is None:
            return
        worker.kill()
        if worker.is_replaced and not self._is_closed:
            self.start(worker.num_gpus)

    def _selector(self, is_held_back: bool) -> dict[str, str]:
        """Ray's label selector of a worker; it also tells others whose worker it is."""
        not_on = self._nodes.refused | (set(self._nodes_now) if is_held_back else set())
        if self._spec.mark:
            not_on.add(self._spec.mark)
        # Without blanks: Ray 2.60 takes ", " and then finds no node by what follows.
        return {NODE_ID: f"!in({','.join(sorted(not_on))})"} if not_on else {}

    def _renew(self) -> None:
        """Have workers that wait for a place do so where they may come now."""
        for number, worker in list(self.workers.items()):
            if not (worker.place or worker.selector == self._selector(worker.is_held_back)):
                self._leave(number)
        self._keep(self._look_around(), self._guards)

    async def _ask_again(self, node: str) -> str:
        """Have a node proved by a process of its own; what is wrong with it, or ""."""
        witness = start_witness(self._spec, node)
        try:
            await witness.find_place()
            return await witness.node_fault()
        except RayError as err:
            return reason_of(err)
        finally:
            witness.kill()

    async def _may_try(self, number: int) -> bool:
        """Wait while a worker's device is set aside; False: another worker takes its place.

        Ray would give the device to the next worker, so this one keeps it, and does not touch it.
        """
        worker = self.workers[number]
        gpu = worker.place.gpu if worker.place else ""
        while self._pause_s(gpu) > 0 and not self._is_closed:
            # With fewer workers than GPUs another one may be free.
            if await asyncio.to_thread(_is_free, worker.num_gpus):
                self._parked.append(self.workers.pop(number))
                self.start(worker.num_gpus)
                return False
            await asyncio.sleep(min(LOOK_S, self._pause_s(gpu)))
        return True

    def _refuse(self, number: int, why: str) -> None:
        """Do without a worker whose device torch cannot train on, and without the device."""
        worker = self.workers[number]
        if worker.place and self._can_wait_for(worker.place.gpu):
            worker.kill()
            self._lose(number, WorkerLoss(why))
            return
        del self.workers[number]
        self._parked.append(worker)
        if self._is_closed:
            return
        self._on_refused(f"{worker.place} is not used: {why}")
        self._keep(self._look_around(), self._guards)

    async def _look_around(self) -> None:
        """See whether anything is left to train on."""
        # A worker without a place may only be slow to load; or no device may be left for it.
        num_started = -1
        while self.workers and num_started != self._num_started:
            if any(worker.place for worker in self.workers.values()):
                return
            if await self._is_any_node_left():
                # Others may use it: their end is waited for.
                if not self._parked:
                    return
                num_started = self._num_started
                await asyncio.sleep(GRACE_S)
            else:
                break
        if self._is_closed or any(worker.place for worker in self.workers.values()):
            return
        # Whatever takes over needs their memory and their cores.
        for worker in self._parked:
            worker.kill()
        self._parked.clear()
        if all(worker.num_gpus for worker in self.workers.values()) or not self._nodes.refused:
            self._on_stranded()
        else:  # nothing takes over from processors
            self.give_up(
                f"No node can train this study: {'; '.join(self._nodes.faults)}. Correct that, "
                f"then 'tcpa resume {self._spec.study_dir.name}'."
            )

    async def _is_any_node_left(self) -> bool:
        """Whether there is a node that may be used and is large enough for a worker."""
        if not self._nodes.refused:
            return True
        num_gpus = min(worker.num_gpus for worker in self.workers.values())
        alive = await asyncio.to_thread(alive_nodes, self._spec.num_cpus, num_gpus)
        return not alive <= self._nodes.refused

    async def _guard(self, number: int) -> None:
        """Kill a worker that shows no sign of life for too long."""
        worker = self.workers[number]
        loss = await worker.hang(lambda: number in self.workers, lambda: self._held_by(number))
        if loss is None:
            return
        worker.kill()
        with contextlib.suppress(TimeoutError):  # some processes cannot even die
            await asyncio.wait_for(worker.gone.wait(), DEATH_S)
        worker.gone.set()
        self._lose(number, loss)

    def _lose(self, number: int, loss: WorkerLoss) -> None:
        """Replace a worker that is gone."""
        worker = self.workers.get(number)
        if worker is None:
            return
        # `_watch` and `_guard` both meet the end of a worker that hung. `_guard` waits for the word
        # of `_watch` that the process has ended, then comes here itself, as it knows the reason.
        if worker.hung_in and not worker.gone.is_set():
            worker.gone.set()
            return
        del self.workers[number]
        if self._is_closed:
            return  # `halt` kills those that still load; that is no failed start
        if not worker.device and not worker.is_retired and loss.counts:
            self._count_failed_start(worker, loss)
            if self._is_closed:
                return
        if worker.is_retired and not worker.device:
            loss = WorkerLoss(worker.why, is_wanted=True)
        elif worker.place and not worker.device:
            loss = replace(loss, gpu=worker.place.gpu)
        self._on_lost(number, loss)
        if worker.is_replaced and not self._is_closed:
            self.start(worker.num_gpus)

    def _count_failed_start(self, worker: WorkerHandle, loss: WorkerLoss) -> None:
        node = worker.place.node if worker.place else ""
        self._failed_starts[node] += 1
        if self._failed_starts[node] < MAX_FAILED_STARTS:
            return
        what = f"{self._failed_starts.pop(node)} workers in a row could not start"
        if worker.place:
            self._nodes.refuse(worker.place, f"{what} there ({loss.reason})")
        else:
            self.give_up(
                f"{what} ({loss.reason}); correct that, then "
                f"'tcpa resume {self._spec.study_dir.name}'."
            )

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
