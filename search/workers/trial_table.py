"""Which trial waits, which runs where, and what its worker is to be sent.

Nothing here knows Ray or waits for anything. Every method takes what has happened, notes it and
returns what follows from it: commands for workers, events for the journal.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from typing import NamedTuple

from search.workers.device_blame import DeviceBlame, test_of
from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss, count_loss
from search.workers.final_tests import FinalTests
from search.workers.quarantine import Quarantine
from search.workers.ready_workers import ReadyWorkers
from search.workers.sentences import failed, notice_of_limit, notice_of_no_score
from search.workers.trial_progress import Report, TrialProgress
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Planned,
    Started,
    Tested,
    TrialEvent,
)
from tcpa_core.record.values import COSTS, Device, EpochReport, TrialResult
from tcpa_core.training.commands import Command, Extend, Limit, Stop


class Order(NamedTuple):
    """A command and the number of the worker that it is for."""

    worker: int
    command: Command


class TrialTable:
    """The trials of a study and the workers that hold them.

    Args:
        metrics: Names of the values that the scheduler and the sampler ask for.
        slots: Trials that one worker holds at once.
        test_at_end: Whether every trial is scored on the test split when it completes.
        quarantine: Follows the devices.
        num_gpus: Of the cluster, as far as it is known: with fewer workers some may be unused.
        keep_every: As of `Submit`.
    """

    def __init__(
        self,
        metrics: Iterable[str],
        slots: int,
        *,
        test_at_end: bool,
        quarantine: Quarantine | None = None,
        num_gpus: int = 0,
        keep_every: int | None = None,
    ) -> None:
        asked = {"epoch", "num_epochs", "status", *metrics}
        # Worked out once: `asdict` for every epoch of every trial copies what nobody asks for.
        self._of_epoch = [field.name for field in fields(EpochReport) if field.name in asked]
        self._of_end = [field.name for field in fields(TrialResult) if field.name in asked]
        self._costs = [name for name in COSTS if name in asked]
        self._test_at_end = test_at_end
        self._keep_every = keep_every
        self._trials: dict[str, TrialProgress] = {}
        self._waiting: deque[str] = deque()
        self._workers = ReadyWorkers(slots)
        self._blame = DeviceBlame(quarantine or Quarantine(), num_gpus)
        self._max_together: int | None = None
        """Most trials to train together, after workers died of more; None: no limit."""
        self._tests = FinalTests()
        self._is_halted = False
        self._num_expected: int | None = None
        """Trials after which no other comes; None: not known."""

    def advance(self, planned: Planned, until_epoch: int) -> list[Order]:
        """Let a trial train up to an epoch."""
        trial = self._trials.get(planned.trial)
        if trial is None:
            epoch = planned.begins_after
            self._trials[planned.trial] = TrialProgress(planned, until_epoch, epoch=epoch)
            self._waiting.append(planned.trial)
            return self.place()
        if trial.has_ended:
            return []
        trial.until_epoch = until_epoch
        if trial.worker is None:
            return []
        return [Order(trial.worker, Extend(trial=planned.trial, until_epoch=until_epoch))]

    def has_arrived(self, name: str) -> bool:
        """Whether nobody need wait for a trial any longer."""
        return self._is_halted or self._trials[name].has_arrived

    def report(self, name: str, until_epoch: int) -> Report:
        """What the scheduler is told of a trial that has arrived; see `Dispatcher.advance`."""
        return self._trials[name].report(until_epoch, is_halted=self._is_halted)

    def stop(self, name: str) -> list[Order]:
        """The scheduler ends a trial early; nothing happens if it has ended already."""
        trial = self._trials.get(name)
        if trial is None or trial.has_ended:
            return []
        trial.is_stopped = True
        return [] if trial.worker is None else [Order(trial.worker, Stop(trial=name))]

    def test(self, planned: Planned) -> list[Order]:
        """Have a trial that has ended scored on the test split."""
        self._tests.ask(planned)
        return self._test_orders()

    def allow(self, slots: int, worker: int | None = None) -> list[Order]:
        """Let a worker hold this many trials at once; None: each that was not told by itself."""
        self._workers.allow(slots, worker)
        return self.place()

    @property
    def extra(self) -> int:
        """As of `ReadyWorkers`."""
        return self._workers.extra

    @property
    def fault(self) -> str | None:
        """Why the study cannot go on; None: it can."""
        return self._blame.fault

    def halt(self) -> None:
        """Place nothing from here on; everybody is told how far the trials are."""
        self._is_halted = True

    def held_by(self, worker: int) -> Collection[str]:
        """Names of the trials that a worker holds; none before it is ready."""
        return self._workers.held_by(worker)

    def is_ready(self, worker: int) -> bool:
        """Whether a worker takes trials: false before its start and once it is lost."""
        return worker in self._workers

    def welcome(
        self, worker: int, device: Device | None = None, slots: int | None = None
    ) -> list[Order]:
        """A worker is ready to take trials.

        Args:
            device: Recorded with each.
            slots: Trials that it holds at once; None: as many as the others.
        """
        self._workers.add(worker, device, slots)
        limits = self._limit_orders() if self._max_together is not None else []
        return [*limits, *self.place(), *self._test_orders()]

    def can_wait_for(self, gpu: str) -> bool:
        """Whether a GPU has been in use, and the study has others while it is not."""
        return self._blame.can_wait_for(gpu, self._workers.gpus)

    def count_out_gpu(self) -> None:
        """A GPU of the cluster cannot be used at all."""
        self._blame.count_out_gpu()

    def close(self, worker: int) -> None:
        """Give a worker no more trials: it is about to end."""
        self._workers.close(worker)

    def expect(self, num_trials: int) -> None:
        """No trial comes after so many."""
        self._num_expected = num_trials

    @property
    def workers_needed(self) -> int | None:
        """Workers that have something to do up to the end; None: more trials may come."""
        if self._num_expected is None or len(self._trials) < self._num_expected:
            return None
        return max(1, len(self._waiting) + self._workers.num_busy)

    def forget(self, worker: int) -> None:
        """A worker is gone that held no trial."""
        self._workers.remove(worker)

    def take(self, events: Iterable[Event]) -> list[Event]:
        """Note what a worker tells; what of it there is to record, in order."""
        news: list[Event] = []
        for event in events:
            new = self._note(event)
            if new is None:
                continue
            news.append(new)
            if isinstance(new, Tested) and new.reason:
                news.append(notice_of_no_score(new))
            if isinstance(new, Epoch):
                news += self._clear_gpu(self._trials[new.trial].worker)
        return news

    def place(self) -> list[Order]:
        """Give waiting trials to the workers with the most free places, oldest first.

        A trial comes back to a device on which it lost a worker only where neither has another
        choice, the least suspicious first.
        """
        if self._is_halted:
            return []
        orders = self._place(tuple(self._waiting), may_return=False)
        left = [name for name in self._waiting if self._trials[name].lost_on]
        left.sort(key=lambda name: self._trials[name].restarts)
        return orders + self._place(left, may_return=True)

    def _place(self, names: Iterable[str], *, may_return: bool) -> list[Order]:
        orders: list[Order] = []
        for name in names:
            trial = self._trials[name]
            worker = self._most_free(trial, may_return=may_return)
            if worker is None and (trial.is_suspect or trial.lost_on):
                continue  # others may have a place all the same
            if worker is None:
                break
            self._waiting.remove(name)
            trial.worker = worker
            self._workers.give(worker, name)
            submit = trial.submit(
                test_at_end=self._test_at_end,
                tells_costs=bool(self._costs),
                keep_every=self._keep_every,
            )
            orders.append(Order(worker, submit))
            if trial.is_stopped:
                orders.append(Order(worker, Stop(trial=name)))
        return orders

    def lose(self, worker: int, loss: WorkerLoss) -> tuple[list[Event], list[Order]]:
        """Take the trials of a lost worker back; they are the first to go on.

        A trial that no worker survives is ended as failed. The rest waits for `place`.
        """
        held, gpu = self._workers.remove(worker)
        gpu = loss.gpu if gpu is None else gpu
        before = {name: self._trials[name].restarts for name in held}
        together = count_loss(
            loss,
            [self._trials[name] for name in held],
            [self._trials[name] for name in loss.hung_in],
        )
        orders: list[Order] = []
        events = self._blame.take_end(
            worker,
            gpu,
            loss,
            self._trials,
            before,
            tests=self._tests.held_by(worker),
            used=self._workers.gpus,
        )
        for tested in self._tests.lose(worker, loss):
            events += [tested, notice_of_no_score(tested)]
            self._blame.convict(test_of(tested.trial))
        if self._blame.is_aside(gpu):
            together = 0
        if together > 1:
            # Under a limit a worker trains fewer at once than it holds.
            self._max_together = max(1, min(together, self._max_together or together) // 2)
            events.append(notice_of_limit(together, self._max_together))
            orders += self._limit_orders()

        for name in reversed(held):  # each goes to the front, so that they stand in their order
            trial = self._trials[name]
            trial.worker = None
            if trial.restarts <= MAX_RESTARTS:
                self._waiting.appendleft(name)
                continue
            ended = failed(name, trial.restarts, loss)
            self._note(ended)
            events.append(ended)
            self._blame.convict(name)
            if self._max_together is not None:  # it was this trial, not too many of them
                self._max_together = None
                orders += self._limit_orders()
        return events, [*orders, *self._test_orders()]

    def _clear_gpu(self, worker: int | None) -> list[Event]:
        """A worker has trained an epoch."""
        gpu = "" if worker is None else self._workers.gpu_of(worker)
        return self._blame.clear(gpu, [self._trials[name] for name in self._waiting])

    def _note(self, event: Event) -> Event | None:
        """What there is to record of an event; None if it tells nothing new."""
        if not isinstance(event, TrialEvent):
            return event
        if isinstance(event, Tested):
            return event if self._tests.is_new(event) else None
        trial = self._trials[event.trial]
        if trial.has_ended:
            return None
        match event:
            case Started():
                device = None if trial.worker is None else self._workers.device_of(trial.worker)
                hardware = None if device is None else device.as_dict()
                trial.costs = {n: (event.costs or {}).get(n) for n in self._costs}
                return replace(event, worker=trial.worker, hardware=hardware)
            case Epoch(report=report):
                # A worker that takes a trial up tells all its epochs: it cannot know which arrived.
                if report.epoch <= trial.epoch:
                    return None
                trial.epoch = report.epoch
                trial.seconds += report.duration_s
                told = {n: getattr(report, n) for n in self._of_epoch}
                # In all so far, as of a trial that has ended.
                told |= {"duration_s": trial.seconds} if "duration_s" in told else {}
                trial.epochs[report.epoch] = told | trial.costs
                trial.restarts = 0
                trial.lost_on.clear()
            case Ended(result=result):
                trial.outcome = {n: getattr(result, n) for n in self._of_end}
                trial.planned = None
                if trial.worker is not None:
                    self._workers.take_back(trial.worker, event.trial)
                    trial.worker = None
        return event

    def _most_free(self, trial: TrialProgress, *, may_return: bool) -> int | None:
        """The worker with the most free places for a trial; None if there is no place.

        A worker holds one suspect at a time, so that its end shows which trial was the cause, and
        one trial in all while its device may be.
        """

        def may_have(worker: int) -> bool:
            held = self._workers.held_by(worker)
            return (may_return or self._workers.gpu_of(worker) not in trial.lost_on) and not (
                trial.is_suspect and any(self._trials[name].is_suspect for name in held)
            )

        return self._workers.most_free(may_have, self._blame.is_doubted)

    def _test_orders(self) -> list[Order]:
        first = next(iter(self._workers), None)
        if first is None:
            return []
        return [Order(first, test) for test in self._tests.send_to(first)]

    def _limit_orders(self) -> list[Order]:
        limit = Limit(members=self._max_together)
        return [Order(worker, limit) for worker in self._workers]
