"""Places trials on pack workers, wherever they run, and carries their events to the driver.

The dispatcher is one asynchronous Ray actor of a study. Workers are Ray actors that own a device
and keep backbone, data and packs warm; one that dies is replaced and its trials go on elsewhere
from their last checkpoint.
"""

import asyncio
import contextlib
import importlib
import os
import re
import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from tcpa_core.record import FINAL_KINDS, TrialResult

Event = dict[str, Any]

MAX_RESTARTS = 3
"""Times that a trial may lose its worker within an epoch before it is taken for the cause."""
MAX_FAILED_STARTS = 3
"""Workers in a row that may die before they take a trial, while none trains; then the study is
given up."""
HALT_S = 15.0
"""How long a halt waits for the end of the epochs; a preempted job is often given 30 s in all."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How pack workers are made."""

    study_dir: Path
    cache_dir: Path | None
    factory: str
    """"module:name" of a callable (study_dir, cache_dir, device, max_members) -> worker."""
    count: int
    slots: int
    """Trials that one worker holds at once."""
    num_cpus: float
    num_gpus: float
    env: dict[str, str]
    """Environment variables of the worker processes, beside what they inherit."""


class PackWorker:
    """Ray actor around a worker of `tcpa_core`: a loop in one thread, commands in another."""

    def __init__(self, spec: WorkerSpec) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(spec.num_cpus)))  # before torch is imported
        module, _, name = spec.factory.partition(":")
        device = "cuda" if spec.num_gpus else "cpu"
        make = getattr(importlib.import_module(module), name)
        self._worker = make(spec.study_dir, spec.cache_dir, device, spec.slots)
        self._wake = threading.Event()
        self._halted = False

    def ready(self) -> None:
        """Return once the worker is made."""

    def probe(self, trials: Sequence[dict[str, Any]], share: float) -> list[int]:
        """Best pack sizes for some settings, measured on this worker's device."""
        sizes: list[int] = self._worker.probe(trials, share)
        return sizes

    def run(self, dispatcher: Any, worker: int) -> None:
        """Train until `halt`. Events are handed over before the next epoch, which may be fatal."""
        while not self._halted:
            self._wake.clear()
            events = self._worker.work()
            if events:
                ray.get(dispatcher.push.remote(worker, events))
            elif self._worker.idle:
                self._wake.wait()

    def command(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Hand a command ("submit", "extend", "stop", "test") to the worker."""
        getattr(self._worker, name)(*args, **kwargs)
        self._wake.set()

    def halt(self) -> None:
        """Let `run` return at the next epoch boundary; every trial has its checkpoint there."""
        self._halted = True
        self._wake.set()


@dataclass(slots=True)
class _Trial:
    params: dict[str, Any]
    until_epoch: int
    worker: int | None = None
    """None: waits for a free place, or has ended."""
    report: dict[str, Any] = field(default_factory=dict)
    """Last epoch's fields, or the final ones."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the trial stands at `until_epoch` or has ended."""
    stopping: bool = False
    restarts: int = 0
    """Workers lost since its last new epoch."""

    @property
    def has_ended(self) -> bool:
        return "status" in self.report

    @property
    def is_suspect(self) -> bool:
        """Lost its worker twice: from now on it runs alone, so that no other fails with it."""
        return self.restarts > 1


@dataclass(slots=True)
class _Worker:
    actor: Any
    trials: set[str] = field(default_factory=set)
    is_ready: bool = False


class Dispatcher:
    """Asynchronous Ray actor; every method may be awaited from anywhere in the cluster."""

    def __init__(self, spec: WorkerSpec, metrics: Sequence[str], test_at_end: bool) -> None:
        self._spec = spec
        self._slots = spec.slots
        self._reported = {"epoch", "num_epochs", "status", *metrics}
        self._test_at_end = test_at_end
        self._workers: dict[int, _Worker] = {}
        self._num_started = 0
        self._failed_starts = 0
        self._trials: dict[str, _Trial] = {}
        self._queue: deque[str] = deque()
        self._outbox: list[Event] = []
        self._news = asyncio.Event()
        self._interrupted = False
        self._fault: str | None = None
        self._tests: dict[str, tuple[dict[str, Any], asyncio.Future[Event]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the workers; they load their libraries while the first trials are sampled."""
        await self.add_workers(self._spec.count)

    async def add_workers(self, count: int) -> None:
        """Start workers; each waits until the cluster has a place for it."""
        for _ in range(count):
            self._start_worker()

    async def measure(self, trials: Sequence[dict[str, Any]], share: float) -> list[int]:
        """Best pack sizes for some settings, measured on the first worker before any trial.

        Returns:
            One number for each; nothing where the worker died of it.
        """
        try:
            sizes: list[int] = await self._workers[0].actor.probe.remote(trials, share)
            return sizes
        except RayError:
            return []

    async def allow(self, slots: int) -> None:
        """Let every worker hold this many trials at once."""
        self._slots = slots
        self._place()

    async def advance(self, trial: str, params: dict[str, Any], until_epoch: int) -> dict[str, Any]:
        """Let a trial train up to an epoch and wait until it stands there or has ended.

        Args:
            trial: Its name.
            params: Its settings; read the first time only.
            until_epoch: It may train up to and including this epoch.

        Returns:
            `epoch`, the objectives as far as they are known, and `done`; with `status` and
            `num_epochs` when it has ended. Told in full once.
        """
        state = self._trials.get(trial)
        if state is None:
            state = self._trials[trial] = _Trial(params, until_epoch)
            self._queue.append(trial)
            self._place()
        elif not state.has_ended:
            state.until_epoch = until_epoch
            if state.report.get("epoch", 0) < until_epoch:  # else a checkpoint was further on
                state.reached.clear()
            if state.worker is not None:
                self._command(state.worker, "extend", trial, until_epoch)
        if not self._interrupted:
            await state.reached.wait()
        done = state.has_ended or self._interrupted
        report = {k: v for k, v in state.report.items() if k in self._reported}
        if state.has_ended:
            state.report = {k: state.report[k] for k in ("epoch", "status") if k in report}
        return {**report, "done": done, "interrupted": self._interrupted}

    async def stop(self, trial: str) -> None:
        """The scheduler ends a trial early; nothing happens if it has ended already."""
        state = self._trials.get(trial)
        if state is not None and not state.has_ended:
            state.stopping = True
            if state.worker is not None:
                self._command(state.worker, "stop", trial)

    async def test(self, trial: str, params: dict[str, Any]) -> Event:
        """Score a finished trial's selected state on the test split."""
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._tests[trial] = params, future
        self._send_tests()
        return await future

    async def halt(self) -> None:
        """Release everybody who waits and end the workers at their next epoch boundary.

        One that does not come to it in time is killed; its trials keep their last checkpoint.
        """
        self._interrupted = True
        for state in self._trials.values():
            state.reached.set()
        for worker in list(self._workers.values()):
            if worker.is_ready:
                worker.actor.halt.remote()
            else:  # perhaps it waits for resources that never come
                ray.kill(worker.actor)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=HALT_S)
        for worker in self._workers.values():
            ray.kill(worker.actor)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def push(self, worker: int, events: Sequence[Event]) -> None:
        """Take a worker's events, in order."""
        if worker not in self._workers:
            return  # taken for dead; its trials go on elsewhere from their checkpoints
        news = [event for event in events if self._take(event)]
        for event in news:
            state = self._trials.get(event["trial"])
            if state and (state.has_ended or state.report.get("epoch", 0) >= state.until_epoch):
                state.reached.set()
        self._outbox += news
        self._news.set()
        self._failed_starts = 0
        self._place()

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

    def _take(self, event: Event) -> bool:
        """Note an event; False if it tells nothing new (a trial taken up tells all its epochs)."""
        trial, kind = event["trial"], event["kind"]
        if kind == "tested":
            _, future = self._tests.pop(trial, (None, None))
            if future is not None:
                future.set_result(event)
            return future is not None
        state = self._trials[trial]
        if state.has_ended:
            return False
        fields = {k: v for k, v in event.items() if k not in ("kind", "trial")}
        if kind == "epoch":
            if event["epoch"] <= state.report.get("epoch", 0):
                return False
            state.report = fields
            state.restarts = 0
        elif kind == "started":
            event["worker"] = state.worker
        elif kind in FINAL_KINDS:
            state.report |= fields
            state.params = {}
            if state.worker is not None:
                self._workers[state.worker].trials.discard(trial)
                state.worker = None
        return True

    def _place(self) -> None:
        """Give waiting trials to the workers with the most free places, oldest first."""
        while self._queue and not self._interrupted:
            trial = self._queue[0]
            state = self._trials[trial]
            number = self._roomiest(alone=state.is_suspect)
            if number is None:
                return
            self._queue.popleft()
            state.worker = number
            self._workers[number].trials.add(trial)
            self._command(
                number,
                "submit",
                trial,
                state.params,
                state.until_epoch,
                test_at_end=self._test_at_end,
            )
            if state.stopping:
                self._command(number, "stop", trial)

    def _roomiest(self, *, alone: bool) -> int | None:
        """The worker with the most free places; one without any trial if `alone`."""
        free = {}
        for number, worker in self._workers.items():
            held = [self._trials[trial] for trial in worker.trials]
            if worker.is_ready and not any(t.is_suspect for t in held) and not (alone and held):
                free[number] = self._slots - len(held)
        roomiest = max(free, key=lambda n: free[n], default=None)
        return roomiest if roomiest is not None and free[roomiest] > 0 else None

    def _send_tests(self) -> None:
        ready = [number for number, worker in self._workers.items() if worker.is_ready]
        for trial, (params, _) in self._tests.items() if ready else ():
            self._command(ready[0], "test", trial, params)

    def _command(self, worker: int, name: str, *args: Any, **kwargs: Any) -> None:
        """Send a command; a worker that refuses one is broken, and `_watch` sees its end."""
        actor = self._workers[worker].actor
        sent = actor.command.remote(name, *args, **kwargs)

        async def check() -> None:
            try:
                await sent
            except RayTaskError:
                ray.kill(actor)
            except RayError:
                pass  # it died: `_watch` moves its trials

        self._spawn(check())

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_worker(self) -> None:
        spec = self._spec
        actor = ray.remote(PackWorker).options(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            max_concurrency=2,
            runtime_env={"env_vars": spec.env} if spec.env else None,
        )
        number = self._num_started
        self._num_started += 1
        self._workers[number] = _Worker(actor.remote(spec))
        self._spawn(self._watch(number))

    async def _watch(self, number: int) -> None:
        """Follow a worker from its start to its end, which only a fault or `interrupt` brings."""
        worker = self._workers[number]
        try:
            await worker.actor.ready.remote()
            worker.is_ready = True
            self._failed_starts = 0
            self._place()
            self._send_tests()
            await worker.actor.run.remote(ray.get_runtime_context().current_actor, number)
        except RayError as err:
            with contextlib.suppress(RayError):
                ray.kill(worker.actor)
            self._lose(number, _clause(err))
        else:
            del self._workers[number]

    def _lose(self, number: int, why: str) -> None:
        """Replace a worker that is gone; its trials are the first to go on."""
        worker = self._workers.pop(number)
        if not worker.is_ready:
            self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._fault = f"{self._failed_starts} workers in a row could not start ({why})"
            self._news.set()
        if self._interrupted or self._fault:
            return
        self._tell_loss(number, why, worker.trials)
        for trial in sorted(worker.trials, reverse=True):
            state = self._trials[trial]
            state.worker = None
            state.restarts += 1
            if state.restarts <= MAX_RESTARTS:
                self._queue.appendleft(trial)
                continue
            reason = f"the trial's worker ended {state.restarts} times, last: {why}"
            result = TrialResult(status="failed", reason=reason).as_dict()
            event = {"kind": "failed", "trial": trial, **result}
            self._take(event)
            self._outbox.append(event)
            self._news.set()
            state.reached.set()
        self._start_worker()

    def _tell_loss(self, number: int, why: str, trials: Collection[str]) -> None:
        """Tell the user in one line."""
        text = f"worker {number} was lost ({why})"
        if trials:
            text += f"; trials {', '.join(sorted(trials))} go on elsewhere from their last epoch"
        self._outbox.append({"kind": "notice", "text": text, "trials": sorted(trials)})
        self._news.set()


def _clause(err: RayError) -> str:
    """What ended a worker, in a clause; Ray says it in a paragraph or in a traceback."""
    if isinstance(err, ActorUnavailableError):
        return "its node does not answer"
    text = str(err).strip()
    because = None if isinstance(err, RayTaskError) else re.search(r"because (its .+?)[.\n]", text)
    return because[1] if because else text.splitlines()[-1]
