"""Places trials on pack workers, wherever they run, and carries their events to the driver.

The dispatcher is one asynchronous Ray actor of a study. Workers are Ray actors that own a device
and keep backbone, data and packs warm; one that dies is replaced and its trials go on elsewhere
from their last checkpoint.
"""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from tcpa_core.record import FINAL_KINDS

Event = dict[str, Any]

MAX_RESTARTS = 3
"""Times that a trial may lose its worker before it is taken for the cause."""


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


class PackWorker:
    """Ray actor around a worker of `tcpa_core`: a loop in one thread, commands in another."""

    def __init__(self, spec: WorkerSpec) -> None:
        module, _, name = spec.factory.partition(":")
        device = "cuda" if spec.num_gpus else "cpu"
        make = getattr(importlib.import_module(module), name)
        self._worker = make(spec.study_dir, spec.cache_dir, device, spec.slots)
        self._wake = threading.Event()

    def run(self, dispatcher: Any, worker: int) -> None:
        """Train for ever; ends only with the process."""
        while True:
            events = self._worker.work()
            if events:
                ray.get(dispatcher.push.remote(worker, events))
            elif self._worker.idle:
                self._wake.wait(1.0)
                self._wake.clear()

    def command(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Hand a command ("submit", "extend", "stop", "test") to the worker."""
        getattr(self._worker, name)(*args, **kwargs)
        self._wake.set()


@dataclass(slots=True)
class _Trial:
    params: dict[str, Any]
    until_epoch: int
    test_at_end: bool
    worker: int
    report: dict[str, Any] = field(default_factory=dict)
    """Last epoch's fields, or the final ones."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the trial stands at `until_epoch` or has ended."""
    restarts: int = 0


class Dispatcher:
    """Asynchronous Ray actor; every method may be awaited from anywhere in the cluster."""

    def __init__(self, spec: WorkerSpec, test_at_end: bool) -> None:
        self._spec = spec
        self._test_at_end = test_at_end
        self._workers: dict[int, Any] = {}
        self._trials: dict[str, _Trial] = {}
        self._outbox: list[Event] = []
        self._news = asyncio.Event()
        self._interrupted = False
        self._tests: dict[str, asyncio.Future[Event]] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the workers; they load their libraries while the first trials are sampled."""
        for _ in range(self._spec.count):
            self._start_worker()

    async def advance(self, trial: str, params: dict[str, Any], until_epoch: int) -> dict[str, Any]:
        """Let a trial train up to an epoch and wait until it stands there or has ended.

        Returns:
            The last epoch's fields with `done`; a final one has `status` too.
        """
        state = self._trials.get(trial)
        if state is None:
            state = _Trial(params, until_epoch, self._test_at_end, self._emptiest())
            self._trials[trial] = state
            self._submit(trial, state)
        elif "status" not in state.report:
            state.reached.clear()
            state.until_epoch = until_epoch
            self._command(state.worker, "extend", trial, until_epoch)
        if self._interrupted:
            state.reached.set()
        await state.reached.wait()
        ended = "status" in state.report or self._interrupted
        return {**state.report, "done": ended, "interrupted": self._interrupted}

    async def stop(self, trial: str) -> None:
        """The scheduler ends a trial early; nothing happens if it has ended already."""
        state = self._trials.get(trial)
        if state is not None and "status" not in state.report:
            self._command(state.worker, "stop", trial)

    async def test(self, trial: str, params: dict[str, Any]) -> Event:
        """Score a finished trial's selected state on the test split."""
        future = asyncio.get_running_loop().create_future()
        self._tests[trial] = future
        self._command(self._emptiest(), "test", trial, params)
        return await future

    async def interrupt(self) -> None:
        """Release everybody who waits; trials stay where their last checkpoint is."""
        self._interrupted = True
        for state in self._trials.values():
            state.reached.set()

    async def settled(self) -> bool:
        """True when no trial is held by a worker."""
        return all("status" in state.report for state in self._trials.values())

    async def push(self, worker: int, events: Sequence[Event]) -> None:
        """Take a worker's events, in order."""
        for event in events:
            self._take(event)
        self._outbox += events
        self._news.set()

    async def next_events(self, timeout_s: float) -> list[Event]:
        """Events since the last call; waits a while if there are none."""
        if not self._outbox:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        events, self._outbox = self._outbox, []
        return events

    def _take(self, event: Event) -> None:
        trial, kind = event["trial"], event["kind"]
        if kind == "tested":
            self._tests.pop(trial).set_result(event)
            return
        state = self._trials[trial]
        if kind == "epoch":
            state.report = {k: v for k, v in event.items() if k not in ("kind", "trial")}
            if event["epoch"] >= state.until_epoch:
                state.reached.set()
        elif kind in FINAL_KINDS:
            state.report |= {k: v for k, v in event.items() if k not in ("kind", "trial")}
            state.params = {}
            state.reached.set()

    def _emptiest(self) -> int:
        """The worker with the fewest trials."""
        held = dict.fromkeys(self._workers, 0)
        for state in self._trials.values():
            if "status" not in state.report and state.worker in held:
                held[state.worker] += 1
        return min(held, key=lambda worker: held[worker])

    def _submit(self, trial: str, state: _Trial) -> None:
        self._command(
            state.worker,
            "submit",
            trial,
            state.params,
            state.until_epoch,
            test_at_end=state.test_at_end,
        )

    def _command(self, worker: int, name: str, *args: Any, **kwargs: Any) -> None:
        self._workers[worker].command.remote(name, *args, **kwargs)

    def _start_worker(self) -> int:
        spec = self._spec
        number = max(self._workers, default=-1) + 1
        threads = str(max(1, int(spec.num_cpus)))
        actor = ray.remote(PackWorker).options(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            max_concurrency=2,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, **_MALLOC}},
        )
        self._workers[number] = actor.remote(spec)
        me = ray.get_runtime_context().current_actor
        loop = self._workers[number].run.remote(me, number)
        watcher = asyncio.get_running_loop().create_task(self._watch(number, loop))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return number

    async def _watch(self, number: int, loop: Any) -> None:
        """Wait for the end of a worker, which only a fault brings, and move its trials."""
        try:
            await loop
        except RayActorError as err:
            cause = f"worker {number} died: {str(err).splitlines()[0]}"
        except ray.exceptions.RayTaskError as err:
            cause = f"worker {number} failed: {err.cause!r}"
            ray.kill(self._workers[number])
        else:
            return
        del self._workers[number]
        if self._interrupted:
            return
        replacement = self._start_worker()
        for trial, state in self._trials.items():
            if state.worker != number or "status" in state.report:
                continue
            state.restarts += 1
            state.worker = replacement
            if state.restarts > MAX_RESTARTS:
                failed = {"kind": "failed", "trial": trial, "status": "failed", "reason": cause}
                await self.push(number, [failed])
            else:
                self._submit(trial, state)


_MALLOC = {
    # glibc returns large blocks to the system after every step and faults them in again in the
    # next; keeping them saves 10 to 15 % of a training step on the CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
