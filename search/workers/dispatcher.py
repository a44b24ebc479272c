"""Places trials on pack workers, wherever they run, and carries their events to the driver.

The dispatcher is one asynchronous Ray actor of a study. Workers are Ray actors that own a device
and keep backbone, data and packs warm; one that dies is replaced and its trials go on elsewhere
from their last checkpoint.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.tune.trial_handle import LAST
from search.workers.actors import actor_class
from search.workers.failure_attribution import (
    MAX_RESTARTS,
    NODE_LOST,
    PackState,
    Report,
    Trial,
    blame,
    clause,
    suspects,
)
from search.workers.pack_worker import PackWorker, WorkerSpec
from search.workers.watchdog import Watchdog
from tcpa_core.errors import StorageError
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Notice,
    Planned,
    Started,
    Tested,
    TrialEvent,
)
from tcpa_core.record.values import EpochReport, Pulse, TrialResult
from tcpa_core.training.commands import Command, Extend, Limit, Stop, Submit, Test

MAX_FAILED_STARTS = 3
"""Workers in a row that may die before they take a trial, while none trains; then the study is
given up."""
HALT_S = 10.0
"""How long a halt waits for the end of the epochs; a preempted job is often given 30 s in all."""
PROBE_S = 600.0
"""A probe of all kinds of packs takes seconds for each, and data may have to be decoded first."""
PULSE = "pulse"
"""The thread of a worker that always answers."""
DEATH_S = 15.0
"""How long a killed worker is waited for, so that no two have the same trial."""


class Dispatcher:
    """Asynchronous Ray actor; every method may be awaited from anywhere in the cluster."""

    def __init__(self, spec: WorkerSpec, metrics: Sequence[str], test_at_end: bool) -> None:
        self._spec = spec
        self._slots = spec.slots
        self._reported = {"epoch", "num_epochs", "status", *metrics}
        self._test_at_end = test_at_end
        self._workers: dict[int, PackState] = {}
        self._num_started = 0
        self._failed_starts = 0
        self._trials: dict[str, Trial] = {}
        self._queue: deque[str] = deque()
        self._outbox: list[Event] = []
        self._news = asyncio.Event()
        self._interrupted = False
        self._fault: str | None = None
        self._together: int | None = None
        """Most trials to train together, after workers died of more; None: no limit."""
        self._tests: dict[str, tuple[Planned, asyncio.Future[Tested]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._guards: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the workers; they load their libraries while the first trials are sampled."""
        await self.add_workers(self._spec.count)

    async def add_workers(self, count: int) -> None:
        """Start workers; each waits until the cluster has a place for it."""
        for _ in range(count):
            self._start_worker()

    async def measure(
        self, trials: Sequence[dict[str, Any]], share: float
    ) -> list[dict[int, float]]:
        """Speeds of packs for some settings, measured on the first worker before any trial.

        Returns:
            As of `tcpa_core.training.worker.Worker.probe`; nothing where the worker died of it or
            did not end.
        """
        actor = self._workers[0].actor
        try:
            speeds: list[dict[int, float]] = await asyncio.wait_for(
                actor.probe.remote(trials, share), PROBE_S
            )
            return speeds
        except TimeoutError:
            ray.kill(actor)
        except RayError:
            pass  # `_watch` replaces it
        return []

    async def allow(self, slots: int) -> None:
        """Let every worker hold this many trials at once."""
        self._slots = slots
        self._place()

    async def advance(self, planned: Planned, until_epoch: int) -> dict[str, Any]:
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
        state = self._trials.get(trial)
        if state is None:
            state = self._trials[trial] = Trial(planned, until_epoch)
            self._queue.append(trial)
            self._place()
        elif not state.has_ended:
            state.until_epoch = until_epoch
            if state.epoch < until_epoch:  # else a checkpoint was further on
                state.reached.clear()
            if state.worker is not None:
                self._command(state.worker, Extend(trial=trial, until_epoch=until_epoch))
        if not self._interrupted:
            await state.reached.wait()
        if until_epoch < state.epoch and until_epoch in state.epochs and not self._interrupted:
            return {**state.epochs[until_epoch], "done": False, "interrupted": False}
        done = state.has_ended or self._interrupted
        last = state.epochs.get(state.epoch, {})
        report = {**last}
        if state.outcome is not None:
            report |= state.outcome | {f"{LAST}{k}": v for k, v in last.items()}
            state.outcome = {k: report[k] for k in ("epoch", "status") if k in report}
            state.epochs.clear()
        return {**report, "done": done, "interrupted": self._interrupted}

    async def stop(self, trial: str) -> None:
        """The scheduler ends a trial early; nothing happens if it has ended already."""
        state = self._trials.get(trial)
        if state is not None and not state.has_ended:
            state.stopping = True
            if state.worker is not None:
                self._command(state.worker, Stop(trial=trial))

    async def test(self, planned: Planned) -> Tested:
        """Score a finished trial's selected state on the test split."""
        future: asyncio.Future[Tested] = asyncio.get_running_loop().create_future()
        self._tests[planned.trial] = planned, future
        self._send_tests()
        return await future

    async def halt(self) -> None:
        """Release everybody who waits and end the workers at their next epoch boundary.

        One that does not come to it in time is killed; its trials keep their last checkpoint.
        """
        self._interrupted = True
        for guard in self._guards:
            guard.cancel()
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
        news = [new for event in events if (new := self._take(event)) is not None]
        for event in news:
            state = self._trials.get(event.trial) if isinstance(event, TrialEvent) else None
            if state and (state.has_ended or state.epoch >= state.until_epoch):
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

    def _take(self, event: Event) -> Event | None:
        """Note an event; None if it tells nothing new (a trial taken up tells all its epochs)."""
        if not isinstance(event, TrialEvent):
            return event
        trial = event.trial
        if isinstance(event, Tested):
            _, future = self._tests.pop(trial, (None, None))
            if future is not None:
                future.set_result(event)
            return event if future is not None else None
        state = self._trials[trial]
        if state.has_ended:
            return None
        match event:
            case Started():
                return replace(event, worker=state.worker)
            case Epoch(report=report):
                if report.epoch <= state.epoch:
                    return None
                state.epoch = report.epoch
                state.epochs[report.epoch] = self._report(report)
                state.restarts = 0
            case Ended(result=result):
                state.outcome = self._report(result)
                state.planned = None
                if state.worker is not None:
                    self._workers[state.worker].trials.discard(trial)
                    state.worker = None
        return event

    def _report(self, values: EpochReport | TrialResult) -> Report:
        return {name: value for name, value in asdict(values).items() if name in self._reported}

    def _place(self) -> None:
        """Give waiting trials to the workers with the most free places, oldest first.

        A worker holds one suspect at a time, so that its end says who was to blame.
        """
        for trial in () if self._interrupted else tuple(self._queue):
            state = self._trials[trial]
            number = self._roomiest(for_suspect=state.is_suspect)
            if number is None and state.is_suspect:
                continue
            if number is None:
                return
            assert state.planned is not None, "a trial that has ended waits for no place"
            self._queue.remove(trial)
            state.worker = number
            self._workers[number].trials.add(trial)
            submit = Submit(
                trial=trial,
                params=state.planned.params,
                until_epoch=state.until_epoch,
                test_at_end=self._test_at_end,
                alone=state.is_suspect,
            )
            self._command(number, submit)
            if state.stopping:
                self._command(number, Stop(trial=trial))

    def _roomiest(self, *, for_suspect: bool) -> int | None:
        """The worker with the most free places."""
        free = {}
        for number, worker in self._workers.items():
            if worker.is_ready and not (for_suspect and suspects(worker, self._trials)):
                free[number] = self._slots - len(worker.trials)
        roomiest = max(free, key=lambda n: free[n], default=None)
        return roomiest if roomiest is not None and free[roomiest] > 0 else None

    def _send_tests(self) -> None:
        ready = [number for number, worker in self._workers.items() if worker.is_ready]
        for trial, (planned, _) in self._tests.items() if ready else ():
            self._command(ready[0], Test(trial=trial, params=planned.params))

    def _command(self, worker: int, command: Command) -> None:
        """Send a command; a worker that refuses one is broken, and `_watch` sees its end."""
        actor = self._workers[worker].actor
        sent = actor.command.remote(command)

        async def check() -> None:
            try:
                await sent
            except RayTaskError:
                ray.kill(actor)
            except RayError:
                pass  # it died: `_watch` moves its trials

        self._spawn(check())

    def _send_limit(self) -> None:
        for number, worker in self._workers.items():
            if worker.is_ready:
                self._command(number, Limit(members=self._together))

    def _spawn(self, coroutine: Any, tasks: set[asyncio.Task[None]] | None = None) -> None:
        tasks = self._tasks if tasks is None else tasks
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _start_worker(self) -> None:
        spec = self._spec
        actor = actor_class(PackWorker, concurrency_groups={PULSE: 1}).options(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            max_concurrency=2,  # one thread trains, one takes commands in their order
            runtime_env={"env_vars": spec.env} if spec.env else None,
        )
        number = self._num_started
        self._num_started += 1
        self._workers[number] = PackState(actor.remote(spec))
        self._spawn(self._watch(number))

    async def _watch(self, number: int) -> None:
        """Follow a worker from its start to its end, which only a fault or `halt` brings."""
        worker = self._workers[number]
        try:
            worker.process = await worker.actor.ready.remote()
            worker.is_ready = True
            self._failed_starts = 0
            self._spawn(self._guard(number), self._guards)
            if self._together is not None:
                self._send_limit()
            self._place()
            self._send_tests()
            await worker.actor.run.remote(ray.get_runtime_context().current_actor, number)
        except RayError as err:
            with contextlib.suppress(RayError):
                ray.kill(worker.actor)
            if isinstance(err, StorageError):  # every worker would meet it
                self._fault = str(err.cause) if isinstance(err, RayTaskError) else str(err)
            self._lose(number, clause(err))
        else:
            self._workers.pop(number, None)

    async def _guard(self, number: int) -> None:
        """Kill a worker that shows no sign of life for too long."""
        worker, watchdog = self._workers[number], Watchdog(self._spec.silence_s)
        pulse: Pulse | None = Pulse()
        while not watchdog.hangs(pulse):
            await asyncio.sleep(watchdog.pause_s)
            if number not in self._workers:
                return
            pulse = await self._feel(worker, max(1.0, watchdog.pause_s))
        trials = pulse.trials if pulse else ()
        worker.hung_in = tuple(sorted(trials or worker.trials))
        what = f"epoch {pulse.epoch}" if pulse and trials else "the work"
        usual = f"{watchdog.usual_s:.1f} s" if watchdog.usual_s is not None else "not known yet"
        why = (
            f"hung: {watchdog.silent_s:.0f} s without a step in {what} of "
            f"{', '.join(worker.hung_in) or 'no trial'}, {worker.process}; longest epoch {usual}"
        )
        ray.kill(worker.actor)
        with contextlib.suppress(TimeoutError):  # some processes cannot even die
            await asyncio.wait_for(worker.gone.wait(), DEATH_S)
        worker.gone.set()
        self._lose(number, why)

    async def _feel(self, worker: PackState, timeout_s: float) -> Pulse | None:
        """The worker's pulse; None: it does not answer, whatever it is doing."""
        ask = worker.actor.pulse.options(concurrency_group=PULSE).remote
        try:
            pulse: Pulse = await asyncio.wait_for(ask(), timeout_s)
            return pulse
        except (TimeoutError, RayError):
            return None

    def _lose(self, number: int, why: str) -> None:
        """Replace a worker that is gone; its trials are the first to go on."""
        worker = self._workers.get(number)
        if worker is None:
            return
        if worker.hung_in and not worker.gone.is_set():
            worker.gone.set()  # `_guard` killed it and says why
            return
        del self._workers[number]
        if not worker.is_ready and not why.startswith(NODE_LOST):
            self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._fault = (
                f"{self._failed_starts} workers in a row could not start ({why}); correct that, "
                f"then 'tcpa resume {self._spec.study_dir.name}'."
            )
        if self._fault:
            self._news.set()
        if self._interrupted or self._fault:
            return
        self._tell_loss(number, why, worker.trials)
        self._shrink(blame(worker, self._trials, why))
        for trial in sorted(worker.trials, reverse=True):
            state = self._trials[trial]
            state.worker = None
            if state.restarts <= MAX_RESTARTS:
                self._queue.appendleft(trial)
            elif trial in worker.hung_in:
                self._fail(trial, why)
            else:
                self._fail(trial, f"its worker ended {state.restarts} times in one epoch: {why}")
        self._start_worker()

    def _shrink(self, members: int) -> None:
        """Train fewer together where so many may be what two workers died of."""
        if members < 2:
            return
        self._together = max(1, min(members, self._together or members) // 2)
        self._say(
            f"two workers died in the same epoch while training {members} trials together, perhaps "
            f"out of memory; at most {self._together} will be trained together from now on"
        )
        self._send_limit()

    def _fail(self, trial: str, reason: str) -> None:
        """End a trial that no worker survives."""
        event = Ended(trial=trial, result=TrialResult(status="failed", reason=reason))
        self._take(event)
        self._outbox.append(event)
        self._news.set()
        self._trials[trial].reached.set()
        if self._together is not None:  # it was this trial, not too many of them
            self._together = None
            self._send_limit()

    def _tell_loss(self, number: int, why: str, trials: Collection[str]) -> None:
        """Tell the user in one line."""
        text = f"worker {number} was lost ({why})"
        if trials:
            text += f"; trials {', '.join(sorted(trials))} go on elsewhere from their last epoch"
        self._say(text, trials)

    def _say(self, text: str, trials: Iterable[str] = ()) -> None:
        self._outbox.append(Notice(text=text, trials=sorted(trials)))
        self._news.set()
