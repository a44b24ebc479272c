"""Which trial waits, which runs where, and what its worker is to be sent.

Nothing here knows Ray or waits for anything. Every method takes what has happened, notes it and
returns what follows from it: commands for workers, events for the journal.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from search.workers.failure_attribution import MAX_RESTARTS, WorkerLoss, count_loss
from search.workers.final_tests import FinalTests
from search.workers.quarantine import MAX_ENDS, MAX_ENDS_OF_LAST, Quarantine
from search.workers.trial_progress import Report, TrialProgress
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
from tcpa_core.record.values import Device, EpochReport, TrialResult
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
    """

    def __init__(
        self,
        metrics: Iterable[str],
        slots: int,
        *,
        test_at_end: bool,
        quarantine: Quarantine | None = None,
        num_gpus: int = 0,
    ) -> None:
        asked = {"epoch", "num_epochs", "status", *metrics}
        # Worked out once: `asdict` for every epoch of every trial copies what nobody asks for.
        self._of_epoch = [field.name for field in fields(EpochReport) if field.name in asked]
        self._of_end = [field.name for field in fields(TrialResult) if field.name in asked]
        self._slots = slots
        self._test_at_end = test_at_end
        self._trials: dict[str, TrialProgress] = {}
        self._waiting: deque[str] = deque()
        self._held: dict[int, set[str]] = {}
        """Names of the trials of every worker that is ready."""
        self._slots_of: dict[int, int] = {}
        """Of workers that hold more or fewer trials than the others, or once did."""
        self._devices: dict[int, Device | None] = {}
        self._gpus: dict[int, str] = {}
        """Names of their GPUs; "": the processor."""
        self._quarantine = quarantine or Quarantine()
        self._num_gpus = num_gpus
        self.fault: str | None = None
        """Why the study cannot go on; None: it can."""
        self._closed: set[int] = set()
        """Workers that take no more trials, while they come to the end of an epoch."""
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
            self._trials[planned.trial] = TrialProgress(planned, until_epoch)
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
        if worker is None:
            self._slots = slots
        else:
            self._slots_of[worker] = slots
        return self.place()

    @property
    def extra(self) -> int:
        """Places that workers have by what they were told themselves, beyond those of others."""
        told = self._slots_of.items()
        return sum(slots - self._slots for worker, slots in told if worker in self._held)

    def halt(self) -> None:
        """Place nothing from here on; everybody is told how far the trials are."""
        self._is_halted = True

    def held_by(self, worker: int) -> Collection[str]:
        """Names of the trials that a worker holds; none before it is ready."""
        return self._held.get(worker, ())

    def is_ready(self, worker: int) -> bool:
        """Whether a worker takes trials: false before its start and once it is lost."""
        return worker in self._held

    def welcome(
        self, worker: int, device: Device | None = None, slots: int | None = None
    ) -> list[Order]:
        """A worker is ready to take trials.

        Args:
            device: Recorded with each.
            slots: Trials that it holds at once; None: as many as the others.
        """
        if slots is not None:
            self._slots_of[worker] = slots
        self._held[worker] = set()
        self._devices[worker] = device
        self._gpus[worker] = device.gpu if device else ""
        limits = self._limit_orders() if self._max_together is not None else []
        return [*limits, *self.place(), *self._test_orders()]

    def can_wait_for(self, gpu: str) -> bool:
        """Whether a GPU has been in use, and the study has others while it is not."""
        return self._quarantine.is_doubted(gpu) and not self._is_last(gpu)

    def count_out_gpu(self) -> None:
        """A GPU of the cluster cannot be used at all."""
        self._num_gpus -= 1

    def close(self, worker: int) -> None:
        """Give a worker no more trials: it is about to end."""
        self._closed.add(worker)

    def expect(self, num_trials: int) -> None:
        """No trial comes after so many."""
        self._num_expected = num_trials

    @property
    def workers_needed(self) -> int | None:
        """Workers that have something to do up to the end; None: more trials may come."""
        if self._num_expected is None or len(self._trials) < self._num_expected:
            return None
        return max(1, len(self._waiting) + sum(map(bool, self._held.values())))

    def forget(self, worker: int) -> None:
        """A worker is gone that held no trial."""
        for known in (self._held, self._gpus, self._devices):
            known.pop(worker, None)
        self._closed.discard(worker)

    def take(self, events: Iterable[Event]) -> list[Event]:
        """Note what a worker tells; what of it there is to record, in order."""
        news: list[Event] = []
        for event in events:
            new = self._note(event)
            if new is None:
                continue
            news.append(new)
            if isinstance(new, Tested) and new.reason:
                news.append(_notice_of_no_score(new))
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
            self._held[worker].add(name)
            orders.append(Order(worker, trial.submit(test_at_end=self._test_at_end)))
            if trial.is_stopped:
                orders.append(Order(worker, Stop(trial=name)))
        return orders

    def lose(self, worker: int, loss: WorkerLoss) -> tuple[list[Event], list[Order]]:
        """Take the trials of a lost worker back; they are the first to go on.

        A trial that no worker survives is ended as failed. The rest waits for `place`.
        """
        held = sorted(self._held.pop(worker, ()))
        gpu = self._gpus.pop(worker, loss.gpu)
        self._closed.discard(worker)
        self._devices.pop(worker, None)
        before = {name: self._trials[name].restarts for name in held}
        together = count_loss(
            loss,
            [self._trials[name] for name in held],
            [self._trials[name] for name in loss.hung_in],
        )
        orders: list[Order] = []
        events: list[Event] = self._blame_gpu(worker, gpu, loss, before)
        for tested in self._tests.lose(worker, loss):
            events += [tested, _notice_of_no_score(tested)]
            self._quarantine.convict(_test_of(tested.trial))
        if self._quarantine.is_aside(gpu):
            together = 0
        if together > 1:
            # Under a limit a worker trains fewer at once than it holds.
            self._max_together = max(1, min(together, self._max_together or together) // 2)
            events.append(_notice_of_limit(together, self._max_together))
            orders += self._limit_orders()

        for name in reversed(held):  # each goes to the front, so that they stand in their order
            trial = self._trials[name]
            trial.worker = None
            if trial.restarts <= MAX_RESTARTS:
                self._waiting.appendleft(name)
                continue
            ended = _failed(name, trial.restarts, loss)
            self._note(ended)
            events.append(ended)
            self._quarantine.convict(name)
            if self._max_together is not None:  # it was this trial, not too many of them
                self._max_together = None
                orders += self._limit_orders()
        return events, [*orders, *self._test_orders()]

    def _blame_gpu(
        self, worker: int, gpu: str, loss: WorkerLoss, before: Mapping[str, int]
    ) -> list[Event]:
        """Set a GPU aside if it is the cause of a loss, and clear the trials of it.

        Args:
            before: What had been counted against the trials that the worker held.
        """
        notice = _notice_of_loss(worker, loss, sorted(before))
        if loss.of_node:
            return []  # said when the node was refused
        if not gpu or not loss.counts:
            return [notice]
        counted = {name: self._trials[name].restarts - was for name, was in before.items()}
        counted |= {_test_of(trial): 1 for trial in self._tests.held_by(worker)}
        for name in before:
            self._trials[name].lost_on.add(gpu)
        verdict = self._quarantine.take_end(
            gpu,
            counted,
            ended_elsewhere=[name for name in before if self._trials[name].lost_on != {gpu}],
            is_last=self._is_last(gpu),
        )
        if verdict == "hopeless":
            self.fault = _fault_of_last(gpu, loss)
        if not self._quarantine.is_aside(gpu):
            return [notice]
        for name, count in self._quarantine.taken_back(gpu):
            if trial := self._trials.get(name):  # else it is a test
                trial.restarts = max(0, trial.restarts - count)
        if verdict == "still aside":  # said when it began: nothing has changed
            return []
        return [_notice_of_aside(gpu, loss, self._quarantine.pause_s(gpu), notice.trials)]

    def _is_last(self, gpu: str) -> bool:
        """Whether no other device is in use, nor one that nobody has tried."""
        others, aside = set(self._gpus.values()) - {gpu}, self._quarantine.aside()
        return others <= aside and self._num_gpus <= len((others | aside | {gpu}) - {""})

    def _clear_gpu(self, worker: int | None) -> list[Event]:
        """A worker has trained an epoch: its GPU was no cause of what ended there before."""
        gpu = "" if worker is None else self._gpus[worker]
        if not self._quarantine.is_doubted(gpu):
            return []
        was_aside = self._quarantine.is_aside(gpu)
        self._quarantine.clear(gpu)
        for name in self._waiting:
            self._trials[name].lost_on.discard(gpu)
        if not was_aside:
            return []
        return [Notice(text=f"{gpu} is in use again: it has trained an epoch")]

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
                device = None if trial.worker is None else self._devices[trial.worker]
                hardware = None if device is None else device.as_dict()
                return replace(event, worker=trial.worker, hardware=hardware)
            case Epoch(report=report):
                # A worker that takes a trial up tells all its epochs: it cannot know which arrived.
                if report.epoch <= trial.epoch:
                    return None
                trial.epoch = report.epoch
                trial.epochs[report.epoch] = {n: getattr(report, n) for n in self._of_epoch}
                trial.restarts = 0
                trial.lost_on.clear()
            case Ended(result=result):
                trial.outcome = {n: getattr(result, n) for n in self._of_end}
                trial.planned = None
                if trial.worker is not None:
                    self._held[trial.worker].discard(event.trial)
                    trial.worker = None
        return event

    def _most_free(self, trial: TrialProgress, *, may_return: bool) -> int | None:
        """The worker with the most free places for a trial; None if there is no place.

        A worker holds one suspect at a time, so that its end shows which trial was the cause, and
        one trial in all while its device may be.
        """
        free = {
            worker: self._places(worker) - len(held)
            for worker, held in sorted(self._held.items())
            if worker not in self._closed
            and (may_return or self._gpus[worker] not in trial.lost_on)
            and not (trial.is_suspect and any(self._trials[name].is_suspect for name in held))
        }
        most = max(free, key=lambda worker: free[worker], default=None)
        return most if most is not None and free[most] > 0 else None

    def _places(self, worker: int) -> int:
        if self._quarantine.is_doubted(self._gpus[worker]):
            return 1
        return self._slots_of.get(worker, self._slots)

    def _test_orders(self) -> list[Order]:
        if not self._held:
            return []
        first = min(self._held)
        return [Order(first, test) for test in self._tests.send_to(first)]

    def _limit_orders(self) -> list[Order]:
        limit = Limit(members=self._max_together)
        return [Order(worker, limit) for worker in sorted(self._held)]


def _notice_of_loss(worker: int, loss: WorkerLoss, held: Sequence[str]) -> Notice:
    what = "has ended" if loss.is_wanted else "was lost"
    text = f"worker {worker} {what} ({loss.reason})"
    if held:
        text += f"; trials {', '.join(held)} go on elsewhere from their last epoch"
    return Notice(text=text, trials=held)


def _notice_of_aside(device: str, loss: WorkerLoss, pause_s: float, held: Sequence[str]) -> Notice:
    pause = f"{pause_s / 60:.0f} min" if pause_s >= 60 else f"{pause_s:.0f} s"
    text = (
        f"{device} is set aside: {MAX_ENDS} workers in a row ended on it before an epoch was "
        f"trained ({loss.reason}); it is tried again in {pause}, then after longer pauses"
    )
    if held:
        text += f"; trials {', '.join(held)} go on elsewhere from their last epoch"
    return Notice(text=text, trials=held)


def _notice_of_no_score(tested: Tested) -> Notice:
    return Notice(
        text=f"trial {tested.trial} has no score on the test split: {tested.reason.rstrip('.')}",
        trials=[tested.trial],
    )


def _test_of(trial: str) -> str:
    """What a device is told of a test, as of a trial."""
    return f"test of {trial}"


def _fault_of_last(device: str, loss: WorkerLoss) -> str:
    return (
        f"{MAX_ENDS_OF_LAST} workers in a row, with different trials, ended on {device} before an "
        f"epoch was trained ({loss.reason}), and no other device is left"
    )


def _notice_of_limit(together: int, limit: int) -> Notice:
    return Notice(
        text=f"two workers died in the same epoch while training {together} trials together, "
        f"perhaps out of memory; at most {limit} will be trained together from now on"
    )


def _failed(trial: str, restarts: int, loss: WorkerLoss) -> Ended:
    """The end of a trial that no worker survives."""
    reason = loss.reason
    if trial not in loss.hung_in:
        reason = f"its worker ended {restarts} times in one epoch: {reason}"
    return Ended(trial=trial, result=TrialResult(status="failed", reason=reason))
