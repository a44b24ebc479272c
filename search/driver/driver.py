"""Run a study to the end of its budget, or take an interrupted one up again."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.driver.cluster import Devices, connect, on_interrupt
from search.proposals.dashboard_copy import OptunaLog
from search.proposals.design import Design
from search.proposals.equal_budgets import EqualBudgets
from search.proposals.race import Race
from search.proposals.sampled import Sampled
from search.proposals.samplers.base import check_sampler
from search.proposals.source import Source
from search.study.folder import Journal, StudyDir
from search.tune.early_stopping import Controller, Schedule
from search.tune.searcher import StudySearcher
from search.tune.trial_handle import PackTrial, Slots
from search.workers.actors import actor_class
from search.workers.dispatcher import HALT_S, Dispatcher
from search.workers.failure_attribution import clause, is_code_fault
from search.workers.pack_worker import WorkerSpec
from spaces.selection import Results
from spaces.space import Space
from tcpa_core.errors import StoppedError, StorageError
from tcpa_core.record.events import (
    Ended,
    Epoch,
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    Stopped,
    StudyBegun,
)
from tcpa_core.record.state import StudyState
from tcpa_core.training.allocator import WORKER_ENV

Listener = Callable[[Event], None]
"""Called with every journal event as it was written, in order, one at a time."""

POLL_S = 0.5
ANSWER_S = 20.0
"""A head or dispatcher that does not answer in this time is lost. Ray itself ends the process 60 s
after it has lost its head, without a word of ours."""
LAST_ANSWER_S = 8.0
"""The same after a signal to stop: it may have ended Ray, and who sent it often waits 30 s."""

SLOTS = 4
"""Trials per worker where nothing was measured."""
IN_TURN = 2
"""Trials per worker where packs gain nothing."""
WORTH = 0.05
"""Gain in speed that makes twice as many trials at once worth it."""
PROBED_TRIALS = 32
"""Trials from which a probe of the pack size earns its seconds back."""

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where trials run; changes no result."""

    address: str | None = None
    """Ray cluster; None starts one on this machine."""
    workers: int | None = None
    """Pack workers; None: one per GPU, or one per CPU where there is no GPU."""
    slots: int | None = None
    """Trials that one worker holds at once; None: as many as still raise
    throughput (see `_measured_slots`)."""
    cache_dir: Path | None = None
    worker_factory: str = "tcpa_core.training.worker:Worker"


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """How a study ended."""

    counts: Mapping[str, int]
    """Trials by final status."""
    reason: str
    """"finished", or why it stopped before."""
    waited_s: float = 0.0
    """Seconds in which a worker's slot was idle because no suggestion was ready."""

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        return self.reason == "finished"


def run_study(
    space: Space,
    study: StudyDir,
    *,
    placement: Placement | None = None,
    listeners: Sequence[Listener] = (),
    notices: Sequence[str] = (),
) -> StudyOutcome:
    """Run what is left of a study: all of it if it is new.

    Ctrl-C or SIGTERM once ends it in order (trials keep their last checkpoint), twice at once.

    Args:
        notices: Sentences for the journal on what the study goes on with.

    Raises:
        ConfigError: The sampler's package is not installed.
        StudyError: Another driver runs it, or no Ray cluster answers at the address.
        StoppedError: It had to stop: a disk is full, no worker starts, or the cluster is gone.
        RecordError: The journal is damaged.
    """
    check_sampler(space.sampler.name)
    placement = placement or Placement()
    notices = [study.lock(), *notices]
    journal = None
    try:
        journal = Journal(study.journal_path)
        if journal.dropped_bytes:
            notices.append(f"left out a torn last line of {journal.dropped_bytes} bytes")
        past = study.state(space.objective[0].metric)
        if past.is_finished:
            return StudyOutcome(past.counts(), "finished")
        run = _Run(space, study, placement, journal, past, listeners)
        return run.go(filter(None, notices))
    except OSError as err:
        if err.errno not in StorageError.ERRNOS:
            raise
        raise StorageError.of(Path(err.filename or study.path), err) from err
    finally:
        if journal is not None:
            journal.close()
        study.unlock()


class _Run:
    """One driver's run of a study."""

    def __init__(
        self,
        space: Space,
        study: StudyDir,
        placement: Placement,
        journal: Journal,
        past: StudyState,
        listeners: Sequence[Listener],
    ) -> None:
        self._space = space
        self._study = study
        self._placement = placement
        self._journal = journal
        self._past = past
        self._schedule = Schedule(space)
        self._listeners = listeners
        self._results = Results.of(space, past)
        self._open = set(past.unfinished())
        """Trials that have not ended."""
        self._stop_reason = ""
        self._failure: BaseException | None = None
        self._is_ray_lost = False
        self._closing = threading.Event()
        self._recording = threading.Lock()
        self._num_gpus = 0.0
        self._began: float | None = None
        """Of the next event: since when the driver's time counts."""
        self._num_workers = 0
        self._waited_s = 0.0

    def go(self, notices: Iterable[str]) -> StudyOutcome:
        """Run to the end of the budget, an interrupt or a fault of the driver.

        Args:
            notices: What the user should know of the study's state.
        """
        cpus = max(self._placement.workers or 0, os.cpu_count() or 1)
        with (
            on_interrupt(self._interrupt),
            connect(self._placement.address, cpus),
            on_interrupt(self._interrupt),  # again: Ray's start takes SIGTERM for itself
        ):
            if self._past.is_empty:
                self._record(StudyBegun(name=self._study.name))
            else:
                self._record(Resumed())
            self._record(*(Notice(text=text) for text in notices))
            self._num_gpus = ray.cluster_resources().get("GPU", 0.0)
            self._devices = Devices("GPU" if self._num_gpus else "CPU")
            try:
                self._dispatcher = self._start_dispatcher()
            except RayError as err:
                self._lose_ray(err)
            else:
                self._work()
            finally:
                self._devices.close()
        if self._failure is not None:
            raise self._failure
        self._record(Stopped(reason=self._stop_reason) if self._stop_reason else Finished())
        reason = self._stop_reason or "finished"
        return StudyOutcome(self._past.counts(), reason, self._waited_s)

    def _work(self) -> None:
        """Run the trials, while a thread records what becomes of them."""
        self._began = self._journal.now()
        self._past.spent.begin(self._began, self._num_gpus)
        pump = threading.Thread(target=self._pump, name="events", daemon=True)
        pump.start()
        try:
            self._tune()
            self._settle()
            self._test_selected()
        except RayError as err:
            self._lose_ray(err)
        finally:
            if not self._is_ray_lost:
                with suppress(RayError):
                    self._answer(self._dispatcher.halt.remote(), HALT_S)
            self._closing.set()
            pump.join()

    def _start_dispatcher(self) -> Any:
        on_gpu = self._num_gpus > 0
        self._num_workers = self._placement.workers or max(1, self._devices.count)
        spec = WorkerSpec(
            study_dir=self._study.path.resolve(),
            cache_dir=self._placement.cache_dir,
            factory=self._placement.worker_factory,
            count=self._num_workers,
            slots=self._placement.slots or SLOTS,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
            env=dict(WORKER_ENV) if self._placement.address else {},
            silence_s=self._space.budget.hang_seconds,
        )
        # Beside the driver: with any other node it would be lost, and the driver's run with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = actor_class(Dispatcher).options(
            num_cpus=0, max_concurrency=10_000, scheduling_strategy=here
        )
        metrics = ["duration_s", *(objective.metric for objective in self._space.objective)]
        dispatcher = actor.remote(spec, metrics, self._tests_all())
        ray.get(dispatcher.start.remote())
        self._slots = self._placement.slots or self._measured_slots(dispatcher, spec.count)
        ray.get(dispatcher.allow.remote(self._slots))
        return dispatcher

    @property
    def _concurrency(self) -> int:
        """One trial per worker waits, so that a place that falls free is taken at once."""
        return self._num_workers * (self._slots + 1)

    def _use_new_nodes(self, limiter: ConcurrencyLimiter, controller: TuneController) -> None:
        """Start a worker for each device of the nodes that have joined the cluster.

        A lost node's workers wait for a place; one that joins in its stead is theirs.
        """
        fixed = self._placement.workers or not self._placement.address
        more = 0 if fixed else self._devices.count - self._num_workers
        if more > 0:
            self._dispatcher.add_workers.remote(more)
            self._num_workers += more
            limiter.set_max_concurrency(self._concurrency)
            controller.update_max_pending_trials(self._concurrency)
            text = f"the cluster has grown: {more} more workers"
            if self._num_gpus:
                self._num_gpus = float(self._devices.count)
            self._record(Notice(text=text, gpus=self._num_gpus))

    def _measured_slots(self, dispatcher: Any, workers: int) -> int:
        """Trials per worker: what the probe says, as far as the study's length makes use of it.

        A design is spread evenly. A sampler learns from finished trials, so a search keeps at least
        four rounds. Studies too short to earn the probe back take `SLOTS`.
        """
        if self._space.ablation:
            left = len(self._space.design()) - sum(self._past.counts().values())
            useful = max(1, -(-left // workers))
        else:
            left = self._space.budget.trials or PROBED_TRIALS
            useful = max(SLOTS, left // (4 * workers))
        useful = min(useful, self._space.budget.pack_size or useful)
        if useful == 1 or (left < PROBED_TRIALS and useful <= 2 * SLOTS):
            return useful
        share = 1.0 if self._num_gpus else 1 / workers
        measured = dispatcher.measure.remote(_largest_trials(self._space), share)
        while not ray.wait([measured], timeout=POLL_S)[0]:
            if self._stop_reason:
                return useful
        speeds = ray.get(measured)
        return min(useful, worth_slots(speeds) if speeds else SLOTS)

    def _tune(self) -> None:
        """Let Ray Tune run the trials."""
        source: Source
        log = self._study.path / "optuna.log"
        if self._space.ablation:
            source = Race(self._space) if self._space.ablation.races else Design(self._space)
        elif self._space.sampler.per:
            source = EqualBudgets(self._space, log, self._study.name)
        else:
            name = self._study.name
            source = Sampled(self._space, name, OptunaLog(log, self._space, [name]))
        searcher = StudySearcher(
            source,
            fingerprints=self._study.document()["fingerprints"],
            plan=self._plan,
            stop=lambda trial: self._dispatcher.stop.remote(trial),
            limit=None if self._space.ablation else self._most_trials(),
            past=self._past.outcomes(),
            may_start=lambda: not self._is_over_budget(),
            ahead=max(2, self._concurrency // 4),
        )
        scratch = tempfile.mkdtemp(prefix="tcpa-tune-")
        try:
            self._drive(searcher, scratch)
        finally:
            searcher.close()
            self._waited_s = searcher.waited_s
            shutil.rmtree(scratch, ignore_errors=True)

    def _plan(self, planned: Planned) -> None:
        self._open.add(planned.trial)
        self._record(planned)

    def _most_trials(self) -> int | None:
        """The budget's trials; a point that has several seeds is run with all of them or none."""
        trials, seeds = self._space.budget.trials, len(self._space.seeds)
        return trials if trials is None or trials < seeds else trials // seeds * seeds

    def _drive(self, searcher: StudySearcher, scratch: str) -> None:
        """Tune's own loop, without its console, snapshots and signal handlers."""
        tune.register_trainable(PackTrial.__name__, PackTrial)
        experiment = Experiment(
            self._study.name,
            PackTrial.__name__,
            num_samples=sys.maxsize,
            storage_path=scratch,
        )
        limiter = ConcurrencyLimiter(searcher, self._concurrency)
        algorithm = SearchGenerator(limiter)
        algorithm.add_configurations([experiment])
        controller = Controller(
            search_alg=algorithm,
            scheduler=self._schedule.scheduler(self._past),
            storage=experiment.storage,
            resource_manager_factory=lambda: Slots(
                self._dispatcher, searcher.trials, self._schedule.decisions
            ),
        )
        controller.update_max_pending_trials(self._concurrency)
        try:
            while not controller.is_finished() and not self._stop_reason:
                self._use_new_nodes(limiter, controller)
                controller.step()
        finally:
            controller.cleanup()

    def _settle(self) -> None:
        """Wait until the end of every trial is in the journal."""
        while not self._stop_reason and self._open:
            time.sleep(0.05)

    def _test_selected(self) -> None:
        """Read the test split once, for the configuration that the search selected."""
        if self._stop_reason or self._tests_all():
            return
        selected = self._results.ranking().selected
        for name, one in self._past.trials.items() if selected else ():
            if one.tested or not selected or name not in selected.trials:
                continue
            tested = self._dispatcher.test.remote(one.planned)
            while not self._stop_reason and not ray.wait([tested], timeout=POLL_S)[0]:
                pass

    def _tests_all(self) -> bool:
        """Whether every trial reads the test split when it completes: rows of a table do."""
        return self._space.ablation is not None and self._space.ablation.test == "all"

    def _is_over_budget(self) -> bool:
        """True when no new trial may start. Time of earlier drivers counts."""
        budget = self._space.budget
        spent, now = self._past.spent, self._journal.now()
        is_over = budget.hours is not None and spent.hours(now) >= budget.hours
        if budget.gpu_hours is not None:
            is_over |= spent.gpu_hours(self._num_gpus, now) >= budget.gpu_hours
        return is_over or bool(self._stop_reason)

    def _interrupt(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason

    def _pump(self) -> None:
        """Carry events from the dispatcher to the journal and the listeners."""
        while True:
            closing = self._closing.is_set()
            try:
                call = self._dispatcher.next_events.remote(0.0 if closing else POLL_S)
                events, fault = self._answer(call, POLL_S)
                if events:
                    self._record(*events)
                if fault is not None:
                    raise StoppedError(fault)
                if self._devices.silent_s > ANSWER_S:
                    raise GetTimeoutError("its head is gone")
            except RayError as err:
                self._lose_ray(err)
                return
            except BaseException as err:  # the main thread raises it
                self._failure = err
                self._interrupt(f"the driver failed: {err}")
                return
            if closing and not events:
                return

    def _answer(self, call: Any, takes_s: float) -> Any:
        """What the dispatcher answers to a call that may take so long.

        Raises:
            GetTimeoutError: It does not.
        """
        begun = time.monotonic()
        while not ray.wait([call], timeout=POLL_S)[0]:
            patience = LAST_ANSWER_S if self._stop_reason else ANSWER_S
            if self._is_ray_lost or time.monotonic() - begun > takes_s + patience:
                raise GetTimeoutError("its dispatcher does not answer")
        return ray.get(call)

    def _lose_ray(self, err: RayError) -> None:
        """End, because the cluster does not answer. A signal to us may have been one to Ray, too.

        Told at once: the main thread may stand in a call of Ray, which then ends the process.
        """
        self._is_ray_lost = True
        if self._stop_reason:
            return
        text = f"the Ray cluster of study {self._study.name!r} does not answer any more"
        why = str(err).strip().splitlines()[0]
        if is_code_fault(err):
            text = f"a fault in the code or the installation has ended study {self._study.name!r}"
            why = clause(err)
        self._record(Notice(text=f"{text}; this driver ends"))
        self._failure = StoppedError(
            f"{text} ({why}); what is recorded is kept: 'tcpa resume {self._study.name}'."
        )
        self._interrupt(text)

    def _is_news(self, event: Event) -> bool:
        """False for an epoch that an earlier driver recorded: its checkpoint was lost."""
        if not isinstance(event, Epoch):
            return True
        return event.report.epoch > self._past.trials[event.trial].epoch

    def _record(self, *events: Event) -> None:
        if self._study.lost_to:
            raise StoppedError(
                f"another driver has taken the study over, because this one showed no sign of "
                f"life for too long: {self._study.lost_to}; what is recorded is kept."
            )
        with self._recording:
            news = [event for event in events if self._is_news(event)]
            if news and self._began is not None:
                news[0] = replace(news[0], began=self._began, gpus=self._num_gpus)
                self._began = None
            for event in self._journal.append(*news):
                self._past.take(event)
                if isinstance(event, Ended):
                    self._open.discard(event.trial)
                for listener in self._listeners:
                    listener(event)


def worth_slots(speeds: Sequence[Mapping[int, float]]) -> int:
    """Trials that a worker should hold, so that its packs are as large as pays.

    Every trial more at the same time is one that the sampler and the scheduler decide on without
    its neighbours' results. Packs of different kinds take turns: to have n members in each, a
    worker needs n trials of each kind. Where packs gain nothing, two trials suffice: one trains
    while the scheduler decides on the other.

    Args:
        speeds: Images per second by number of members, for each kind of pack; {} for a kind that
            trains alone.
    """
    packs = [by_size for by_size in speeds if by_size]

    def seconds(members: int) -> float:
        """Time for one image of every kind."""
        return sum(1 / by_size[max(n for n in by_size if n <= members)] for by_size in packs)

    members = 1
    while packs and seconds(2 * members) * (1 + WORTH) < seconds(members):
        members *= 2
    return members * len(speeds) if members > 1 else IN_TURN


def _largest_trials(space: Space) -> list[dict[str, Any]]:
    """For every method chain and batch size, the corner of the space with the most prompts."""
    found: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}
    for config in space.trials:
        flat = config.flat()
        size = sum(
            value
            for path, value in flat.items()
            if path.split(".")[0] in flat["methods"] and isinstance(value, int)
        )
        key = (*flat["methods"], flat["train.batch_size"])
        if key not in found or size > found[key][0]:
            found[key] = (size, flat)
    return [flat for _, flat in found.values()]
